"""Resolve the names of dtypes and devices."""

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
    """Return a floating-point dtype by its full or short name, such as float32, fp16 or bf16; None is float32."""
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(_DTYPES)}, got {dtype!r}")
    return _DTYPES[dtype]


def as_device(device: str | torch.device | None) -> torch.device:
    """Return a device by its name; None is a GPU if there is one, else the CPU.

    Raises InputError, which lists the available devices, if it cannot be used.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InputError(f"device: expected one of {', '.join(_devices())}, got {str(device)!r}") from error
    return resolved


def _devices() -> list[str]:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    numbers = range(torch.accelerator.device_count()) if accelerator is not None else range(0)
    return ["cpu", *(f"{accelerator.type}:{number}" for number in numbers if accelerator is not None)]
