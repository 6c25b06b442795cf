"""Images from their files, in batches of one size; files that are no images are told, not hidden."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from prip.errors import PripError

from .parts import BadFileError

MAX_PIXELS = 2**26
"""Larger images are taken for broken: they would fill the memory."""


class BadImageError(PripError):
    """A file that cannot be decoded as an image."""


@dataclass(frozen=True)
class ImageBatch:
    """Images of one size, uint8 (n, 3, height, width), and the place of each in the list that was read."""

    places: list[int]
    images: Tensor


def read_image(file: str | Path | bytes) -> Tensor:
    """Returns uint8 (3, height, width) of a file or of its content. Raises BadImageError with the reason."""
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
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


def read_batches(
    read: Callable[[int], bytes], count: int, batch_size: int, bad: dict[int, str], threads: int = 1
) -> Iterator[ImageBatch]:
    """Reads places 0 to count in their order, batch_size at a time, and yields the images of each size in such a batch
    together.

    read: gives the content of the file at a place, or raises BadFileError; it and the decoding run on `threads`
    threads, one batch ahead. Places that cannot be read or decoded go into `bad`, with the reason.
    """
    ahead: deque[tuple[range, list[Future[Tensor]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, batch_size):
            places = range(start, min(start + batch_size, count))
            ahead.append((places, [pool.submit(_read, read, place) for place in places]))
            if len(ahead) > 1:
                yield from _by_size(*ahead.popleft(), bad)
        if ahead:
            yield from _by_size(*ahead.popleft(), bad)


def _read(read: Callable[[int], bytes], place: int) -> Tensor:
    return read_image(read(place))


def _by_size(places: range, images: list[Future[Tensor]], bad: dict[int, str]) -> Iterator[ImageBatch]:
    by_size: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for place, future in zip(places, images, strict=True):
        try:
            image = future.result()
        except (BadFileError, BadImageError) as error:
            bad[place] = str(error)
        else:
            by_size.setdefault(tuple(image.shape), []).append((place, image))
    for members in by_size.values():
        yield ImageBatch([place for place, _ in members], torch.stack([image for _, image in members]))
