"""How settings name what a part is loaded as: a dtype, a device."""

from __future__ import annotations

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
