"""Image preprocessing of the published rewards, as their authors do it: resize, crop or pad, normalise.

Images are uint8 `(n, 3, height, width)` of any size, or floats in 0..255, which keep their gradient; pixels are float32
`(n, 3, edge, edge)` on the images' device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..protocols import Images
from ..resizing import resize_bicubic

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(images: Tensor, edge: int) -> Tensor:
    """Preprocess as openai/CLIP, open_clip and ImageReward: Pillow's bicubic, then torchvision's CenterCrop."""
    resized = resize(images, *size_of_shorter_edge(images, edge))
    margins = [round((side - edge) / 2) for side in resized.shape[-2:]]  # half to even, as torchvision rounds
    return normalise(crop_at(resized, edge, margins) / 255)


def processor_pixels(images: Tensor, edge: int) -> Tensor:
    """Preprocess as transformers' CLIPImageProcessor: `clip_pixels`, but half-pixel margins are rounded down."""
    resized = resize(images, *size_of_shorter_edge(images, edge))
    return normalise(crop_at(resized, edge, [(side - edge) // 2 for side in resized.shape[-2:]]) / 255)


def padded_pixels(images: Tensor, edge: int) -> Tensor:
    """Preprocess as hpsv2: torchvision's antialiased bicubic on floats (may leave 0..1), padded with black."""
    height, width = size_of_longer_edge(images, edge)
    pixels = images.float() / 255
    if (height, width) != tuple(images.shape[-2:]):
        pixels = F.interpolate(pixels, (height, width), mode="bicubic", align_corners=False, antialias=True)
    rows, columns = edge - height, edge - width
    padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return normalise(F.pad(pixels, padding))


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize as Pillow does: uint8 bit for bit, floats in 0..255 with gradient.

    Floats take Pillow's two passes, each clamped to 0..255, but are not rounded to integers, which changes a pixel by
    at most 1.5.
    """
    if images.dtype == torch.uint8:
        return resize_bicubic(images, height, width)
    for size in ((images.shape[-2], width), (height, width)):
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)
    return images


def size_of_shorter_edge(images: Tensor, edge: int) -> tuple[int, int]:
    """Return height and width after scaling the shorter side to `edge`; the longer one is rounded down."""
    height, width = images.shape[-2:]
    shorter, longer = sorted((height, width))
    scaled = int(edge * longer / shorter)
    return (scaled, edge) if height > width else (edge, scaled)


def size_of_longer_edge(images: Tensor, edge: int) -> tuple[int, int]:
    """Return height and width after scaling the longer side to `edge`; the shorter one is rounded half to even."""
    height, width = images.shape[-2:]
    scale = edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def crop_at(images: Tensor, edge: int, margins: list[int]) -> Tensor:
    """Crop a square of `edge` pixels at `margins` (top, left)."""
    top, left = margins
    return images[..., top : top + edge, left : left + edge]


def normalise(pixels: Tensor) -> Tensor:
    """Standardise floats in 0..1 by CLIP's mean and deviation per channel."""
    mean, deviation = (pixels.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_DEVIATION))
    return (pixels - mean) / deviation


def check_pairs(prompts: int, images: Images) -> None:
    """Raise InputError unless images are uint8 `(n, 3, height, width)`, one per prompt."""
    _check_images(prompts, images, images.dtype == torch.uint8, "uint8")


def check_float_pairs(prompts: int, images: Tensor) -> None:
    """Raise InputError unless images are floats `(n, 3, height, width)`, one per prompt."""
    _check_images(prompts, images, images.is_floating_point(), "floats")


def _check_images(prompts: int, images: Tensor, is_kind: bool, kind: str) -> None:
    if not is_kind or images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        shape = f"{str(images.dtype)[6:]} {tuple(images.shape)}"
        raise InputError(f"images: expected {kind} (n, 3, height, width), got {shape}")
    if len(images) != prompts:
        raise InputError(f"images: expected one for each of {prompts} user prompts, got {len(images)}")
