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
