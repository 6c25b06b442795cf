"""Bicubic resizing of uint8 images, bit for bit as in Pillow, on any device and in batches.

Models trained on images that Pillow resized expect its exact pixels, which floating-point interpolation does not give:
Pillow makes two passes, each rounded to uint8, with 22-bit coefficients (src/libImaging/Resample.c). Rows are resized
first and columns second, as in every Pillow before 13; Pillow 13 starts with the columns of tall images.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

PRECISION = 1 << 22
"""Common denominator of the coefficients: 32 bits minus 8 for the pixel and 2 of headroom."""

STRIP = 16
"""Output pixels of a line computed together; the weights of a whole line would be mostly zeros."""

_SUPPORT = 2.0
_SHARPNESS = -0.5


def resize_bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 images `(n, channels, h, w)` to `(n, channels, height, width)` as Pillow's `Image.BICUBIC` does.

    Integers below 2^53 are exact in float64, whatever order a device adds them in.
    """
    for dimension, side in ((3, width), (2, height)):
        if images.shape[dimension] != side:
            strips = [_strip(images, dimension, side, start) for start in range(0, side, STRIP)]
            images = torch.cat(strips, dim=dimension)
    return images.contiguous()


def _strip(images: Tensor, dimension: int, side: int, start: int) -> Tensor:
    """Return STRIP output pixels, from `start`, of images resized to `side` along a dimension."""
    first, rows = _strip_weights(images.shape[dimension], side, start)
    rows = rows.to(images.device)
    inputs = images.narrow(dimension, first, rows.shape[1]).double()
    sums = inputs @ rows.T if dimension == 3 else rows @ inputs
    return sums.add_(PRECISION // 2).div_(PRECISION).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=1024)
def _strip_weights(old: int, new: int, start: int) -> tuple[int, Tensor]:
    """Return the first input pixel that a strip reads, and its weights `(output pixels, input pixels)`."""
    rows = _weights(old, new)[start : start + STRIP]
    inputs = rows.any(dim=0).nonzero()
    first, last = int(inputs[0]), int(inputs[-1])
    return first, rows[:, first : last + 1].contiguous()


@lru_cache(maxsize=64)
def _weights(old: int, new: int) -> Tensor:
    """Return the weight of each input pixel in each output pixel of a line, `(new, old)`, in units of 1/PRECISION."""
    scale = old / new
    stretch = max(scale, 1.0)
    weights = torch.zeros(new, old, dtype=torch.float64)
    for index in range(new):
        center = (index + 0.5) * scale
        first = max(int(center - _SUPPORT * stretch + 0.5), 0)
        last = min(int(center + _SUPPORT * stretch + 0.5), old)
        row = [_bicubic((pixel - center + 0.5) / stretch) for pixel in range(first, last)]
        total = sum(row)
        for pixel, value in enumerate(row, first):
            share = value / total * PRECISION
            weights[index, pixel] = math.floor(share + 0.5) if share >= 0 else math.ceil(share - 0.5)
    return weights


def _bicubic(distance: float) -> float:
    x = abs(distance)
    if x < 1:
        return ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * _SHARPNESS if x < 2 else 0.0
