"""Loads third-party language models and tokenizers from a folder or the Hub: safetensors only, no remote code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prip.devices import as_dtype
from prip.errors import CheckpointError
from prip.loading.folders import resolve_folder
from prip.loading.strict import load_strictly
from prip.loading.untrusted import read_config
from prip.modeling.pretrained import load_base_tokenizer

_TOKENIZER_FILES = ("*.json", "merges.txt", "vocab.txt", "*.model")
_CONVERT = (
    "save it once with transformers' save_pretrained and name that folder, or name a revision that has safetensors"
)


def load_language_model(place: str, kind: Literal["causal", "seq2seq"], dtype: str, device: str) -> PreTrainedModel:
    """Load a frozen language model in evaluation mode from a folder or owner/name[@revision] on the Hub.

    Raises:
        CheckpointError: The model is of another kind, has no safetensors, or does not fit its config.
        InputError: The dtype is unknown.
    """
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING

    torch_dtype = as_dtype(dtype)
    folder = resolve_folder(place, choose=_model_files)
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: {_no_safetensors([path.name for path in folder.iterdir()])}")
    mapping: Mapping[Any, Any]
    mapping = MODEL_FOR_CAUSAL_LM_MAPPING if kind == "causal" else MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    model_type = str(read_config(folder / "config.json").get("model_type"))
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in mapping:
        raise CheckpointError(f"{folder}: expected a {kind} language model known to transformers, got {model_type!r}")
    cls: Any = mapping[CONFIG_MAPPING[model_type]]
    model = load_strictly(cls, folder, torch_dtype)
    return model.to(device).requires_grad_(False).eval()


def load_tokenizer_of(place: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or owner/name[@revision]. Raises CheckpointError when there is none."""
    folder = resolve_folder(place, choose=_tokenizer_files)
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_config(folder / name)
    return load_base_tokenizer(folder)


def _tokenizer_files(names: Sequence[str]) -> list[str]:
    return [
        name for name in names if "/" not in name and any(fnmatchcase(name, pattern) for pattern in _TOKENIZER_FILES)
    ]


def _model_files(names: Sequence[str]) -> list[str]:
    """Return a repository's tokenizer files and weights. Raises CheckpointError when it has no safetensors."""
    weights = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if not weights:
        raise CheckpointError(_no_safetensors(names))
    return [*_tokenizer_files(names), *weights]


def _no_safetensors(names: Sequence[str]) -> str:
    pickles = sorted(name for name in names if Path(name).suffix in (".bin", ".pt", ".pth"))
    pickled = f": {', '.join(pickles)} is a pickle, which is never loaded; {_CONVERT}" if pickles else ""
    return f"expected a safetensors file, got none{pickled}"
