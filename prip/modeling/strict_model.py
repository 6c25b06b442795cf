"""What E and D share as transformers models: strict loading, and building around somebody else's model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import CheckpointError, require
from ..loading.folders import load_strictly, part_folder, quiet
from ..loading.untrusted import check_inside, read_config, tensor_shapes

if TYPE_CHECKING:
    import os

    import torch

NOT_ARCHITECTURE = ("dtype", "_name_or_path", "transformers_version", "architectures")
"""What a nested config says of its origin: the outer config answers for that."""


def nested_config(config: PreTrainedConfig) -> dict[str, Any]:
    """Return a config as the dict that an outer config holds."""
    return {key: value for key, value in config.to_dict().items() if key not in NOT_ARCHITECTURE}


class StrictModel(PreTrainedModel):
    """A transformers model that loads strictly, and from a subfolder of a local or Hub checkpoint."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        revision: str | None = None,
        subfolder: str = "",
        **options: Any,
    ) -> Any:
        """Load from a folder or the Hub; `dtype`, `device_map` and `revision` are transformers' own.

        `dtype` None is float32 on the CPU and the checkpoint's own elsewhere. Returns the model in evaluation mode.
        Raises CheckpointError when anything is missing, unexpected, damaged or foreign.
        """
        folder = part_folder(pretrained_model_name_or_path, revision, subfolder)
        return load_strictly(cls, super().from_pretrained, folder, dtype, device_map, **options)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:  # type: ignore[override]
        """Write config.json and (sharded) safetensors; `options` are transformers' own."""
        with quiet():
            super().save_pretrained(save_directory, **options)


def load_adapter(lm: Any, folder: Path) -> Any:
    """Put the LoRA adapter in a folder on a language model; this needs peft.

    Raises CheckpointError when it is missing, damaged, no LoRA, or does not fit the model.
    """
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"{weights} is missing")
    check_inside(weights)
    tensor_shapes(weights)
    config = read_config(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("megatron_config"):
        raise CheckpointError(f"{folder / 'adapter_config.json'} is foreign: a plain LoRA adapter was expected")
    peft = require("peft", "train")
    try:  # the adapter is built without memory, so that no size in its config is believed
        adapted = peft.PeftModel.from_pretrained(lm, str(folder), low_cpu_mem_usage=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder} cannot be loaded: {type(error).__name__}: {reason}") from error
    missing = [name for name, weight in adapted.named_parameters() if weight.is_meta]
    if missing:
        raise CheckpointError(f"{folder} does not fit its language model: missing {', '.join(missing)}")
    return adapted.eval()
