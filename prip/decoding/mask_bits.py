"""Masks over the vocabulary as bits: eight tokens a byte."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pack_bits(values: Tensor) -> Tensor:
    """Pack bool (..., n) on the CPU into uint8 (..., n / 8 rounded up), lowest bit first; padding bits are 0."""
    return torch.from_numpy(np.packbits(values.numpy(), axis=-1, bitorder="little"))


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Return the bool (..., count) that was packed by `pack_bits`, on the device of `packed`."""
    bits = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> bits) & 1).bool().flatten(-2)[..., :count]
