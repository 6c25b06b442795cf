"""Images from files, in batches of one size; unreadable files are reported."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from prip.picture_files import BadImageError, read_image

from .parts import BadFileError


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size, uint8 (n, 3, height, width), and the index of each in the list that was read."""

    indices: list[int]
    images: Tensor


def write_png(path: Path, image: Tensor) -> None:
    """Write uint8 (3, height, width) as a PNG, atomically."""
    temporary = path.with_name(f"{path.name}.tmp")
    Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(temporary, format="PNG")
    temporary.replace(path)


def read_batches(
    read: Callable[[int], bytes], count: int, batch_size: int, bad: dict[int, str], threads: int = 1
) -> Iterator[ImageBatch]:
    """Read images 0 to count in order, batch_size at a time, and yield those of equal size in a batch together.

    Args:
        read: returns the content of the file at an index, or raises BadFileError.
        count: number of images.
        batch_size: maximum number of images per batch.
        bad: receives the reason for each image that cannot be read or decoded, by index.
        threads: number of threads that read and decode, one batch ahead.
    """
    ahead: deque[tuple[range, list[Future[Tensor]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, batch_size):
            indices = range(start, min(start + batch_size, count))
            ahead.append(
                (indices, [pool.submit(lambda index: read_image(read(index), "train"), index) for index in indices])
            )
            if len(ahead) > 1:
                yield from _by_size(*ahead.popleft(), bad)
        if ahead:
            yield from _by_size(*ahead.popleft(), bad)


def _by_size(indices: range, images: list[Future[Tensor]], bad: dict[int, str]) -> Iterator[ImageBatch]:
    by_size: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for index, future in zip(indices, images, strict=True):
        try:
            image = future.result()
        except (BadFileError, BadImageError) as error:
            bad[index] = str(error)
        else:
            by_size.setdefault(tuple(image.shape), []).append((index, image))
    for members in by_size.values():
        yield ImageBatch([index for index, _ in members], torch.stack([image for _, image in members]))
