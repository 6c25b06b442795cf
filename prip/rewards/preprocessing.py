"""What published scorers do to an image before they look at it: resize, crop or pad, normalise, as their authors do.

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
    """As openai/CLIP, open_clip and ImageReward: resized as by Pillow, torchvision's CenterCrop crops."""
    resized = resize(images, *size_of_shorter_edge(images, edge))
    return normalise(crop_at(resized, edge, [rounded_margin(side, edge) for side in resized.shape[-2:]]) / 255)


def processor_pixels(images: Tensor, edge: int) -> Tensor:
    """As transformers' CLIPImageProcessor: as by Pillow; odd margins are cut where `clip_pixels` rounds to even."""
    resized = resize(images, *size_of_shorter_edge(images, edge))
    return normalise(crop_at(resized, edge, [(side - edge) // 2 for side in resized.shape[-2:]]) / 255)


def padded_pixels(images: Tensor, edge: int) -> Tensor:
    """As hpsv2: floats first, torchvision's antialiased bicubic on them, which may leave 0..1; black fills up."""
    height, width = size_of_longer_edge(images, edge)
    pixels = images.float() / 255
    if (height, width) != tuple(images.shape[-2:]):
        pixels = F.interpolate(pixels, (height, width), mode="bicubic", align_corners=False, antialias=True)
    rows, columns = edge - height, edge - width
    padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return normalise(F.pad(pixels, padding))


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resizes as Pillow does: uint8 bit for bit; floats in 0..255 with gradient, in Pillow's two passes and within its
    range after each, but without its rounding to whole numbers, which moves a pixel by 1.5 at most.
    """
    if images.dtype == torch.uint8:
        return resize_bicubic(images, height, width)
    for size in ((images.shape[-2], width), (height, width)):
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 255)
    return images


def size_of_shorter_edge(images: Tensor, edge: int) -> tuple[int, int]:
    """Height and width once the shorter of them is `edge`; the longer one is cut to whole pixels."""
    height, width = images.shape[-2:]
    shorter, longer = sorted((height, width))
    scaled = int(edge * longer / shorter)
    return (scaled, edge) if height > width else (edge, scaled)


def size_of_longer_edge(images: Tensor, edge: int) -> tuple[int, int]:
    """Height and width once the longer of them is `edge`; the other one is rounded to whole pixels, halves to even."""
    height, width = images.shape[-2:]
    scale = edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def rounded_margin(side: int, edge: int) -> int:
    """Pixels before a central crop, halves rounded to even, as torchvision does."""
    return round((side - edge) / 2)


def crop_at(images: Tensor, edge: int, margins: list[int]) -> Tensor:
    """The square of `edge` pixels that begins `margins` (top, left) into the image."""
    top, left = margins
    return images[..., top : top + edge, left : left + edge]


def normalise(pixels: Tensor) -> Tensor:
    """CLIP's mean and deviation of each channel: floats in 0..1 to floats around 0."""
    mean, deviation = (pixels.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_DEVIATION))
    return (pixels - mean) / deviation


def check_pairs(prompts: int, images: Images) -> None:
    """Raises InputError unless images are uint8 (n, 3, height, width) with one prompt each."""
    _check_images(prompts, images, images.dtype == torch.uint8, "uint8")


def check_float_pairs(prompts: int, images: Tensor) -> None:
    """Raises InputError unless images are floats (n, 3, height, width) with one prompt each."""
    _check_images(prompts, images, images.is_floating_point(), "floats")


def _check_images(prompts: int, images: Tensor, is_kind: bool, kind: str) -> None:
    if not is_kind or images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InputError(
            f"images: wanted {kind} (n, 3, height, width), got {str(images.dtype)[6:]} {tuple(images.shape)}"
        )
    if len(images) != prompts:
        raise InputError(f"images: wanted one for each of {prompts} user prompts, got {len(images)}")
