"""Make assets/glyphs.png from a colour font: `python -m prip.miniature.glyph_sheet NotoColorEmoji.ttf`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .renderer import GLYPH_COLUMNS, GLYPH_SIZE
from .vocabulary import SUBJECTS

FONT_SIZE = 109
"""The one size at which Noto Color Emoji's bitmaps can be drawn."""


def glyph_tile(glyph: str, font: Any) -> Image.Image:
    """Return a glyph, cropped and aligned to the lower edge of an RGBA square with sides of GLYPH_SIZE pixels."""
    canvas = Image.new("RGBA", (2 * FONT_SIZE, 2 * FONT_SIZE))
    ImageDraw.Draw(canvas).text((FONT_SIZE // 4, FONT_SIZE // 4), glyph, font=font, embedded_color=True)
    drawn = canvas.crop(canvas.getbbox())
    side = max(drawn.size)
    square = Image.new("RGBA", (side, side))
    square.paste(drawn, ((side - drawn.width) // 2, side - drawn.height))
    return square.resize((GLYPH_SIZE, GLYPH_SIZE), Image.Resampling.LANCZOS)


def glyph_sheet(font_path: str) -> Image.Image:
    """Return the glyphs of all subjects in order, GLYPH_COLUMNS per row."""
    font = ImageFont.truetype(font_path, FONT_SIZE)
    rows = -(-len(SUBJECTS) // GLYPH_COLUMNS)
    sheet = Image.new("RGBA", (GLYPH_COLUMNS * GLYPH_SIZE, rows * GLYPH_SIZE))
    for index, subject in enumerate(SUBJECTS):
        row, column = divmod(index, GLYPH_COLUMNS)
        sheet.paste(glyph_tile(subject.glyph, font), (column * GLYPH_SIZE, row * GLYPH_SIZE))
    return sheet


if __name__ == "__main__":
    glyph_sheet(sys.argv[1]).save(Path(__file__).parent / "assets" / "glyphs.png", optimize=True)
