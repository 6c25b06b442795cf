"""The images of a report, inside the page itself, as many as it may hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prip.errors import require

from ..analysis.table import number
from .markup import escaped, signed

SIDE = 256
"""Images of more pixels a side are shrunk to this and stored as JPEG."""
TINY = 96
"""Images of fewer are stored as they are, and enlarged without smoothing."""
_QUALITY = 82


class Album:
    """Brings images into the page, and counts them."""

    def __init__(self, path_of: Callable[[str], Path]) -> None:
        """path_of: image address -> its file."""
        self.path_of = path_of
        self.shown = 0
        self._image = require("PIL.Image", "evaluate")

    def figure(self, row: Mapping[str, Any], scorer: str, decimals: int) -> str:
        """Returns a row of the results as an image with its score, or what there is in its place."""
        score = row[f"score:{scorer}"]
        told = "" if score is None or score != score else signed(number(score, decimals))
        alt = f"{row['refiner']}, seed {row['seed']}: {row['refined_prompt']}" + (f"; {scorer} {told}" if told else "")
        caption = f"<figcaption>{told}</figcaption>" if told else ""
        return f"<figure>{self._picture(row, alt)}{caption}</figure>"

    def _picture(self, row: Mapping[str, Any], alt: str) -> str:
        if not row["image"]:
            return f'<span class="absent" role="img" aria-label="{escaped(alt)}: failed">failed</span>'
        try:
            with self._image.open(self.path_of(row["image"])) as opened:
                content, kind, side = self._encoded(opened.convert("RGB"))
        except OSError:
            return f'<span class="absent" role="img" aria-label="{escaped(alt)}: missing">missing</span>'
        self.shown += 1
        tiny = ' class="tiny"' if side < TINY else ""
        data = base64.b64encode(content).decode()
        return f'<img{tiny} alt="{escaped(alt)}" src="data:image/{kind};base64,{data}">'

    def _encoded(self, image: Any) -> tuple[bytes, str, int]:
        side, buffer = max(image.size), io.BytesIO()
        if side < TINY:
            image.save(buffer, format="PNG", optimize=True)
            return buffer.getvalue(), "png", side
        image.thumbnail((SIDE, SIDE), self._image.Resampling.LANCZOS)
        image.save(buffer, format="JPEG", quality=_QUALITY)
        return buffer.getvalue(), "jpeg", side
