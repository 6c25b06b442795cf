"""An image of a generator as Pillow has it."""

from __future__ import annotations

from typing import Any

from prip.errors import require
from prip.protocols import Images


def as_picture(image: Images, extra: str = "generate") -> Any:
    """Return a PIL.Image.Image of one image, uint8 `(3, height, width)`.

    Raises MissingExtraError, which names `extra`, without Pillow.
    """
    return require("PIL.Image", extra).fromarray(image.permute(1, 2, 0).contiguous().numpy())
