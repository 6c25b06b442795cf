"""Stores images on disk by content address, so that no image is drawn twice."""

from __future__ import annotations

import hashlib
import io
import math
import os
from contextlib import suppress
from pathlib import Path

from prip.errors import InputError, require
from prip.picture_files import BadImageError, read_image
from prip.pictures import as_picture
from prip.protocols import Images

_LENGTH = 32
"""Hexadecimal digits of an address: 128 bits."""


def address(generator: str, prompt: str, seed: int) -> str:
    """Return the address of the image of (prompt, seed); `generator` is the generator's identity."""
    return hashlib.sha256("\0".join((generator, prompt, str(seed))).encode()).hexdigest()[:_LENGTH]


class ImageStore:
    """PNG files by address, written atomically. Several evaluations may share a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        require("PIL.Image", "evaluate")

    def path(self, address: str) -> Path:
        """Return the file of an image."""
        return self.folder / address[:2] / f"{address}.png"

    def read(self, address: str) -> Images | None:
        """Return an image, uint8 (3, height, width), or None when it is missing or cannot be read."""
        try:
            return read_image(self.path(address), "evaluate", max_side=math.inf)
        except BadImageError:
            return None

    def write(self, address: str, image: Images) -> None:
        """Write an image, uint8 (3, height, width), atomically. Raises InputError when it cannot be written."""
        path = self.path(address)
        buffer = io.BytesIO()
        as_picture(image, "evaluate").save(buffer, format="PNG", compress_level=1)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(buffer.getvalue())
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
