"""Somebody else's pretrained model, around which E or D is built: what it says of itself is not believed.

A base comes whole into the Hub's cache, verified, before anything of it is read. Its config's sizes are compared with
its weights' headers before memory is taken; code and pickles in it are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoTokenizer

from ..errors import CheckpointError
from ..loading.folders import quiet, resolve_folder
from ..loading.untrusted import check_counts, check_no_adapter, check_shapes, read_config, tensor_shapes, weight_files

if TYPE_CHECKING:
    import os

FILES = re.compile(r"[^/]+\.(json|model|txt)|model(-\d+-of-\d+)?\.safetensors")
"""What is fetched of a base: configs, tokenizer and weights at its top, no other form of the weights and no code."""


def base_folder(name: str | os.PathLike[str]) -> Path:
    """Return the folder of a base: a local one, or owner/name[@revision] on the Hub. Errors as in `resolve_folder`."""
    return resolve_folder(name, choose=_chosen)


def load_base(cls: Any, name: str | os.PathLike[str], **options: Any) -> Any:
    """Load a base as a `cls` of transformers, from safetensors alone, without code of its own.

    `options` are those of its from_pretrained (dtype, device_map).
    Raises CheckpointError when there is none, when it is damaged, and when its config describes another model than its
    weights are; the last before any memory is taken for it.
    """
    folder = base_folder(name)
    path = folder / "config.json"
    config = read_config(path, ignored=("auto_map",))
    check_no_adapter(folder)
    stored = {key: shape for file in weight_files(folder) for key, shape in tensor_shapes(file).items()}
    check_counts(config, len(stored), path)
    fixed = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            with torch.device("meta"):
                check_shapes(_of_config(cls, folder), stored, path)
            return cls.from_pretrained(str(folder), **fixed, **options)
    except CheckpointError:
        raise
    except Exception as error:  # a config may make any line of a model's constructor fail
        raise CheckpointError(_reason(name, cls, error)) from error


def load_base_tokenizer(name: str | os.PathLike[str]) -> Any:
    """Load the tokenizer of a base. Raises CheckpointError when that fails."""
    folder = base_folder(name)
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the readers of tokenizers have errors of their own
        raise CheckpointError(_reason(name, AutoTokenizer, error)) from error


def _of_config(cls: Any, folder: Path) -> Any:
    """Return the model that a folder's config describes, with random weights."""
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return cls.from_config(config, trust_remote_code=False) if hasattr(cls, "from_config") else cls(config)


def _chosen(names: Sequence[str]) -> list[str]:
    return [name for name in names if FILES.fullmatch(name)]


def _reason(name: str | os.PathLike[str], cls: Any, error: Exception) -> str:
    return f"{str(name)!r} cannot be loaded as a {cls.__name__}: {' '.join(str(error).split())[:300]}"
