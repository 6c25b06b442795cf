"""Load a pretrained model from its folder or the Hub, for an encoder or decoder to be built around it.

It is untrusted: all of it is fetched and verified before any of it is read, the sizes in its config are compared with
the headers of its weights before memory is allocated, and its code and pickles are left alone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import CheckpointError
from ..loading.folders import resolve_folder
from ..loading.strict import quiet
from ..loading.untrusted import check_counts, check_no_adapter, check_shapes, open_weights, read_config

FILES = re.compile(r"[^/]+\.(json|model|txt)|model(-\d+-of-\d+)?\.safetensors")
"""The files to fetch: configs, tokenizer and weights at the top; no other weight formats and no code."""


def base_folder(name: str | os.PathLike[str]) -> Path:
    """Return the folder of a pretrained model: a local one, or owner/name[@revision] on the Hub.

    Errors are those of `resolve_folder`.
    """
    return resolve_folder(name, choose=lambda names: [file for file in names if FILES.fullmatch(file)])


def load_base(cls: Any, name: str | os.PathLike[str], **options: Any) -> PreTrainedModel:
    """Load a pretrained model from safetensors, without running code of its own.

    Args:
        cls: A model class of transformers, or an auto class.
        name: A folder, or owner/name[@revision] on the Hub.
        options: Arguments of the class's `from_pretrained` (dtype, device_map).

    Raises:
        CheckpointError: If it is missing or damaged, or its config does not fit its weights; the latter is found
            before any memory is allocated.
    """
    folder = base_folder(name)
    file = folder / "config.json"
    config = read_config(file, ignored=("auto_map",))
    check_no_adapter(folder)
    shapes = open_weights(folder).shapes
    check_counts(config, len(shapes), file)
    fixed = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            with torch.device("meta"):
                check_shapes(_from_config(cls, folder), shapes, file)
            return cls.from_pretrained(str(folder), **fixed, **options)
    except CheckpointError:
        raise
    except Exception as error:  # a bad config can break any line of a model's constructor
        raise CheckpointError(_reason(name, cls, error)) from error


def load_base_tokenizer(name: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a pretrained model. Raises CheckpointError if that fails."""
    folder = base_folder(name)
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizer formats have error types of their own
        raise CheckpointError(_reason(name, AutoTokenizer, error)) from error


def _from_config(cls: Any, folder: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return cls.from_config(config, trust_remote_code=False) if hasattr(cls, "from_config") else cls(config)


def _reason(name: str | os.PathLike[str], cls: Any, error: Exception) -> str:
    return f"{str(name)!r} cannot be loaded as a {cls.__name__}: {' '.join(str(error).split())[:300]}"
