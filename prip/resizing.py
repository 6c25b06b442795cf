"""Bicubic resizing of uint8 images, bit for bit as Pillow does it, on any device and in batches.

Models that were trained on images which Pillow resized see other pixels through an interpolation in floating point:
Pillow's two passes, each rounded to uint8, with coefficients of 22 bits (src/libImaging/Resample.c), are part of their
input. Lines come first and columns second, as in every Pillow before 13, which these models were trained with:
Pillow 13 begins with the columns of tall images.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

PRECISION = 1 << 22
"""The coefficients' common denominator: 32 bits less 8 of the pixel and 2 of headroom."""

_SUPPORT = 2.0
_SHARPNESS = -0.5


def resize_bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Resizes uint8 (n, channels, h, w) to uint8 (n, channels, height, width), by Pillow's `Image.BICUBIC`.

    Products and sums of integers below 2^53 are exact in float64, whatever order a device adds them in.
    """
    for side, dimension in ((width, 3), (height, 2)):
        if images.shape[dimension] != side:
            weights = _weights(images.shape[dimension], side).to(images.device)
            moved = images.transpose(dimension, 3).double() @ weights.T
            moved = ((moved + PRECISION // 2) / PRECISION).floor_().clamp_(0, 255).to(torch.uint8)
            images = moved.transpose(dimension, 3)
    return images.contiguous()


@lru_cache(maxsize=64)
def _weights(old: int, new: int) -> Tensor:
    """What each pixel of a line of `new` takes from a line of `old`: whole numbers in PRECISION-ths, (new, old)."""
    scale = old / new
    stretch = max(scale, 1.0)
    weights = torch.zeros(new, old, dtype=torch.float64)
    for place in range(new):
        centre = (place + 0.5) * scale
        first = max(int(centre - _SUPPORT * stretch + 0.5), 0)
        last = min(int(centre + _SUPPORT * stretch + 0.5), old)
        row = [_bicubic((pixel - centre + 0.5) / stretch) for pixel in range(first, last)]
        total = sum(row)
        for pixel, value in enumerate(row, first):
            share = value / total * PRECISION
            weights[place, pixel] = math.floor(share + 0.5) if share >= 0 else math.ceil(share - 0.5)
    return weights


def _bicubic(distance: float) -> float:
    x = abs(distance)
    if x < 1:
        return ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * _SHARPNESS if x < 2 else 0.0
