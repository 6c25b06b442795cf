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
    """Returns the device; None takes a GPU where there is one. Raises InputError, which names those that there are, for
    one that cannot be used."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InputError(f"device {str(device)!r} cannot be used; there are: {', '.join(_devices())}") from error
    return place


def _devices() -> list[str]:
    """Returns the names of the devices of this machine."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    numbers = range(torch.accelerator.device_count()) if accelerator is not None else range(0)
    return ["cpu", *(f"{accelerator.type}:{number}" for number in numbers if accelerator is not None)]
