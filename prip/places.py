"""How settings name what is loaded: a place with a pinned revision, a dtype, a device."""

from __future__ import annotations

from pathlib import Path

import torch

from .errors import InputError

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}


def split_revision(name: str | Path) -> tuple[str, str | None]:
    """Returns (name, revision) of "NAME@REVISION"; a path that exists is a name as a whole, whatever it holds."""
    text = str(name)
    if "@" not in text or Path(text).expanduser().exists():
        return text, None
    place, _, revision = text.rpartition("@")
    if not place or not revision:
        raise InputError(f"name: wanted NAME or NAME@REVISION, got {text!r}")
    return place, revision


def as_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """Returns a floating dtype by its name, as torch or in short: float32, fp16, bf16; None is float32."""
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise InputError(f"dtype: wanted one of {', '.join(_DTYPES)}, got {dtype!r}")
    return _DTYPES[dtype]


def as_device(device: str | torch.device | None) -> torch.device:
    """Returns the device; None takes a GPU where there is one."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
