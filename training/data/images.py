"""Images from files, in batches of one size; files that are no images are told, not hidden."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prip.errors import PripError

MAX_PIXELS = 2**26
"""Larger images are taken for broken: they would fill the memory."""


class BadImageError(PripError):
    """A file that cannot be decoded as an image."""


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size, uint8 (n, 3, height, width), and the place of each in the list that was read."""

    places: list[int]
    images: Tensor


def read_image(path: str | Path) -> Tensor:
    """Returns uint8 (3, height, width). Raises BadImageError with the reason."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImageError(f"it is too large: {image.width} x {image.height}")
            pixels = np.array(image.convert("RGB"))
    except BadImageError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImageError(f"it cannot be decoded: {type(error).__name__}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def write_png(path: Path, image: Tensor) -> None:
    """Writes uint8 (3, height, width) as a PNG that is whole or absent."""
    temporary = path.with_name(f"{path.name}.tmp")
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(temporary, format="PNG")
    temporary.replace(path)


def read_batches(paths: Sequence[str], batch_size: int, bad: dict[int, str]) -> Iterator[ImageBatch]:
    """Reads `paths` in their order, batch_size at a time, and yields the images of each size in such a batch together.

    Places that cannot be decoded go into `bad`, with the reason.
    """
    for start in range(0, len(paths), batch_size):
        by_size: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        for place in range(start, min(start + batch_size, len(paths))):
            try:
                image = read_image(paths[place])
            except BadImageError as error:
                bad[place] = str(error)
            else:
                by_size.setdefault(tuple(image.shape), []).append((place, image))
        for members in by_size.values():
            yield ImageBatch([place for place, _ in members], torch.stack([image for _, image in members]))
