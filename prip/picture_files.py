"""Read the pictures that people bring: PNG, WebP and JPEG as viewers show them, in RGB with 8 bits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch

from .errors import PripError, require

if TYPE_CHECKING:
    from PIL.Image import Image

    from .protocols import Images

MAX_SIDE = 4096
"""Wider or higher pictures are refused before they are decoded, to bound memory."""

_DECODERS = {
    b"\x89PNG\r\n\x1a\n": ("PIL.PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("PIL.JpegImagePlugin", "JpegImageFile"),
    b"RIFF": ("PIL.WebPImagePlugin", "WebPImageFile"),
}
"""Pillow's module and class by the first bytes of a file. `PIL.Image.open` would warn of large pictures on its own."""
_HEAD_BYTES = 12


class BadImageError(PripError):
    """A file cannot be read as a picture; the message is the reason, in one line."""


def read_picture(file: str | Path | bytes, extra: str = "generate", max_side: float = MAX_SIDE) -> Image:
    """Return a picture as people see it, as a Pillow image in RGB.

    EXIF rotation is applied, transparent pixels are put on white, gray of 16 bits is scaled to 8, and of an animation
    the first frame is taken.

    Args:
        file: A path, or the content of a file.
        extra: Named by MissingExtraError if Pillow is missing.
        max_side: Largest width and height in pixels; infinite for pictures of PRIP's own.

    Raises:
        BadImageError: The file cannot be read, is no PNG, WebP or JPEG, is larger than `max_side`, or is damaged.
    """
    image_module = require("PIL.Image", extra)
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else _readable(Path(file)) as stream:
            opened = _opened(stream, extra, max_side)
            if "transparency" in opened.info:
                opened.info["transparency"] = _in_8_bits(opened.info["transparency"], opened.tile)
            return _as_rgb(require("PIL.ImageOps", extra).exif_transpose(opened), image_module)
    except BadImageError:
        raise
    except Exception as error:  # for a damaged file, a decoder raises errors of any class
        raise BadImageError(f"cannot be decoded: {type(error).__name__}") from error


def read_image(file: str | Path | bytes, extra: str = "generate", max_side: float = MAX_SIDE) -> Images:
    """Return `read_picture` as uint8 `(3, height, width)`; arguments and errors as there."""
    pixels = np.array(read_picture(file, extra, max_side))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _readable(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadImageError(f"cannot be read: {error.strerror or type(error).__name__}") from error


def _opened(stream: IO[bytes], extra: str, max_side: float) -> Any:
    """Return a file as Pillow's image, of which only the header is decoded."""
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    decoder = next((decoder for start, decoder in _DECODERS.items() if head.startswith(start)), None)
    if decoder is None or (head.startswith(b"RIFF") and head[8:] != b"WEBP"):
        content = f"a file that begins with {head!r}" if head else "an empty file"
        raise BadImageError(f"expected PNG, WebP or JPEG, got {content}")
    module, name = decoder
    image = getattr(require(module, extra), name)(stream)
    if max(image.size) > max_side:
        width, height = image.size
        raise BadImageError(f"expected at most {max_side:,} pixels a side, got {width} x {height}")
    return image


def _as_rgb(image: Any, image_module: Any) -> Image:
    """Decode an image to RGB with 8 bits, on white where it is transparent."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int32)
        clear = levels == image.info.get("transparency", -1)
        scaled = np.where(clear, 255, (levels.clip(0, 65535) * 255 + 32767) // 65535)
        return image_module.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        return image_module.alpha_composite(image_module.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _in_8_bits(transparency: Any, tile: Any) -> Any:
    """Return the transparent color of a PNG in the depth of Pillow's pixels; Pillow leaves it in that of the file."""
    depth = tile[0][3] if tile else ""
    if depth in ("L;2", "L;4"):
        return transparency * (85 if depth == "L;2" else 17)
    return tuple(level >> 8 for level in transparency) if depth == "RGB;16B" else transparency
