"""What E and D share as transformers models: strict loading, and building around somebody else's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig, PreTrainedModel

from .errors import CheckpointError
from .loading import load_strictly, quiet, resolve_folder

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
        folder = resolve_folder(pretrained_model_name_or_path, revision) / subfolder
        model_type = cls.config_class.model_type  # type: ignore[union-attr]
        return load_strictly(super().from_pretrained, model_type, folder, dtype, device_map, **options)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> None:  # type: ignore[override]
        """Write config.json and (sharded) safetensors; `options` are transformers' own."""
        with quiet():
            super().save_pretrained(save_directory, **options)


def load_foreign(cls: Any, name: str | os.PathLike[str], options: dict[str, Any]) -> Any:
    """Load somebody else's pretrained model, from safetensors only, as a CheckpointError when that fails."""
    try:
        return cls.from_pretrained(name, use_safetensors=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{str(name)!r} cannot be loaded as a {cls.__name__}: {reason}") from error
