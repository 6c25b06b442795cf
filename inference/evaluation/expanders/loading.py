"""Somebody else's language model and its tokenizer: from a folder or the Hub, safetensors only, no code of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from prip.devices import as_dtype
from prip.errors import CheckpointError
from prip.loading.folders import resolve_folder
from prip.loading.strict import load_strictly
from prip.loading.untrusted import read_config
from prip.modeling.pretrained import load_base_tokenizer

_TOKENIZER_FILES = ("*.json", "merges.txt", "vocab.txt", "*.model")
_CONVERT = (
    "save it once with transformers' save_pretrained, and name that folder; or name a revision that has safetensors"
)


def load_language_model(place: str, kind: str, dtype: str, device: str) -> Any:
    """Return a frozen model in evaluation mode.

    place: a folder, or owner/name[@revision] on the Hub. kind: "causal" or "seq2seq". Raises CheckpointError where it
    is none of that kind, has no safetensors, or does not fit its config; InputError for an unknown dtype.
    """
    from transformers import (
        CONFIG_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    )

    wanted = as_dtype(dtype)
    folder = resolve_folder(place, choose=_model_files)
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: {_no_safetensors([path.name for path in folder.iterdir()])}")
    mapping: Mapping[Any, Any] = {
        "causal": MODEL_FOR_CAUSAL_LM_MAPPING,
        "seq2seq": MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    }[kind]
    model_type = str(read_config(folder / "config.json").get("model_type"))
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in mapping:
        raise CheckpointError(f"{folder} is no {kind} language model that transformers knows: {model_type!r}")
    cls = mapping[CONFIG_MAPPING[model_type]]
    model = load_strictly(cls, folder, wanted)
    return model.to(device).requires_grad_(False).eval()


def load_tokenizer_of(place: str) -> Any:
    """Return a tokenizer from a folder or owner/name[@revision]. Raises CheckpointError where there is none."""
    folder = resolve_folder(place, choose=_tokenizer_files)
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_config(folder / name)
    return load_base_tokenizer(folder)


def _tokenizer_files(names: Sequence[str]) -> list[str]:
    return [name for name in names if "/" not in name and any(fnmatchcase(name, one) for one in _TOKENIZER_FILES)]


def _model_files(names: Sequence[str]) -> list[str]:
    """Of a repository's files, the tokenizer's and the weights. Raises CheckpointError where no weights can be read."""
    weights = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if not weights:
        raise CheckpointError(_no_safetensors(names))
    return [*_tokenizer_files(names), *weights]


def _no_safetensors(names: Sequence[str]) -> str:
    pickles = sorted(name for name in names if Path(name).suffix in (".bin", ".pt", ".pth"))
    pickled = f": {', '.join(pickles)} is a pickle, and none is ever loaded; {_CONVERT}" if pickles else ""
    return f"no safetensors file there{pickled}"
