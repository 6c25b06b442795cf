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

STRIP = 16
"""Places of a resized line that are computed together: a product with all old places would be zeros for the most."""

_SUPPORT = 2.0
_SHARPNESS = -0.5


def resize_bicubic(images: Tensor, height: int, width: int) -> Tensor:
    """Resizes uint8 (n, channels, h, w) to uint8 (n, channels, height, width), by Pillow's `Image.BICUBIC`.

    Products and sums of integers below 2^53 are exact in float64, whatever order a device adds them in.
    """
    for dimension, side in ((3, width), (2, height)):
        if images.shape[dimension] != side:
            strips = [_strip(images, dimension, side, start) for start in range(0, side, STRIP)]
            images = torch.cat(strips, dim=dimension)
    return images.contiguous()


def _strip(images: Tensor, dimension: int, side: int, start: int) -> Tensor:
    """STRIP places from `start` on of `images` resized to `side` along a dimension: each takes few of the old ones."""
    first, rows = _strip_weights(images.shape[dimension], side, start)
    rows = rows.to(images.device)
    taken = images.narrow(dimension, first, rows.shape[1]).double()
    moved = taken @ rows.T if dimension == 3 else rows @ taken
    return moved.add_(PRECISION // 2).div_(PRECISION).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=1024)
def _strip_weights(old: int, new: int, start: int) -> tuple[int, Tensor]:
    """The weights of a strip, and the first old place that has one: (places in the strip, old places that it takes)."""
    rows = _weights(old, new)[start : start + STRIP]
    taken = rows.any(dim=0).nonzero()
    first, last = int(taken[0]), int(taken[-1])
    return first, rows[:, first : last + 1].contiguous()


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
