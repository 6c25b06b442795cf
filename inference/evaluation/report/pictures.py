"""Embeds the images of a report in the page itself."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prip.errors import require
from prip.picture_files import BadImageError, read_picture

from ..analysis.table import number

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 256
"""Larger images are shrunk to this size and stored as JPEG."""
TINY = 96
"""Smaller images are stored as they are, and magnified without smoothing."""
_QUALITY = 82


@dataclass(frozen=True)
class Figure:
    """An image with its score, or the reason why it is absent."""

    label: str
    scorer: str
    score: str
    """Empty when there is none."""
    source: str = ""
    """The image as a data URL."""
    absent: str = ""
    tiny: bool = False


class Album:
    """Encodes images for the page, and counts them."""

    def __init__(self, path_of: Callable[[str], Path]) -> None:
        """path_of: maps an image address to its file."""
        self.path_of = path_of
        self.shown = 0
        self._image = require("PIL.Image", "evaluate")

    def figure(self, row: Mapping[str, Any], scorer: str, decimals: int) -> Figure:
        """Return the figure of a row of the results."""
        value = row[f"score:{scorer}"]
        score = "" if value is None or value != value else number(value, decimals)
        label = f"{row['refiner']}, seed {row['seed']}: {row['refined_prompt']}"
        if not row["image"]:
            return Figure(label, scorer, score, absent="failed")
        path = self.path_of(row["image"])
        try:
            source, tiny = self._encoded(read_picture(path, "evaluate", max_side=math.inf))
        except BadImageError:
            return Figure(label, scorer, score, absent="unreadable" if path.exists() else "missing")
        self.shown += 1
        return Figure(label, scorer, score, source, tiny=tiny)

    def _encoded(self, image: Image) -> tuple[str, bool]:
        tiny, buffer = max(image.size) < TINY, io.BytesIO()
        if tiny:
            image.save(buffer, format="PNG", optimize=True)
        else:
            image.thumbnail((SIDE, SIDE), self._image.Resampling.LANCZOS)
            image.save(buffer, format="JPEG", quality=_QUALITY)
        kind = "png" if tiny else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", tiny
