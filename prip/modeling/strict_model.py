"""Base class of PRIP's transformers models: strict loading, and building around a pretrained model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import CheckpointError, require
from ..loading.folders import PartFolder, part_folder
from ..loading.strict import checkpoint_errors, load_strictly, quiet
from ..loading.untrusted import Weights, read_config

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

NOT_ARCHITECTURE = ("dtype", "_name_or_path", "transformers_version", "architectures")
"""Fields of a nested config that say where it is from; the outer config has its own."""


def nested_config(config: PreTrainedConfig) -> dict[str, Any]:
    """Return a config as a dict for an outer config to hold."""
    return {key: value for key, value in config.to_dict().items() if key not in NOT_ARCHITECTURE}


class StrictModel(PreTrainedModel):
    """A transformers model that loads strictly, also from a subfolder of a local or Hub checkpoint."""

    config_class: type[PreTrainedConfig]

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | PartFolder,
        *,
        dtype: str | torch.dtype | None = None,
        device_map: str | dict[str, Any] | None = None,
        revision: str | None = None,
        subfolder: str = "",
        **options: Any,
    ) -> Self:
        """Load the model in evaluation mode.

        Args:
            pretrained_model_name_or_path: An embedded checkpoint, a folder or "owner/name" on the Hub.
            dtype: None means float32, or the checkpoint's own dtype if `device_map` puts the model on an accelerator.
            device_map: As in transformers; needs accelerate.
            revision: Branch, tag or commit on the Hub.
            subfolder: Folder of the part inside the checkpoint.
            options: Further arguments of transformers' `from_pretrained`.

        Raises:
            CheckpointError: If anything is missing, unexpected, damaged or foreign.
        """
        return load_strictly(
            cls, cls._open(pretrained_model_name_or_path, revision, subfolder), dtype, device_map, **options
        )

    @classmethod
    def _open(cls, model: str | os.PathLike[str] | PartFolder, revision: str | None, subfolder: str) -> PartFolder:
        if isinstance(model, PartFolder):
            return model
        return PartFolder.open(part_folder(model, revision, subfolder), cls.config_class.model_type)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:  # type: ignore[override]
        """Write config.json and (sharded) safetensors; `options` are those of transformers."""
        with quiet():
            super().save_pretrained(save_directory, **options)


def load_adapter(lm: PreTrainedModel, folder: Path) -> PeftModel:
    """Put the LoRA adapter in a folder on a language model. Needs peft.

    Raises CheckpointError if the adapter is missing, damaged, not a LoRA, or does not fit the model.
    """
    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{file} is missing")
    Weights([file])
    config = read_config(folder / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("megatron_config"):
        raise CheckpointError(f"{folder / 'adapter_config.json'} is foreign: expected a plain LoRA adapter")
    peft = require("peft", "train")
    with checkpoint_errors(folder):  # built on the meta device, so that sizes in the config allocate nothing
        adapted = peft.PeftModel.from_pretrained(lm, str(folder), low_cpu_mem_usage=True)
    missing = [name for name, weight in adapted.named_parameters() if weight.is_meta]
    if missing:
        raise CheckpointError(f"{folder} does not fit its language model: missing {', '.join(missing)}")
    return adapted.eval()
