"""Draw with Pillow: tensors as images, and text in the first font that has each character."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from .errors import require

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

    from .protocols import Images

    Font = FreeTypeFont | BitmapFont

FILES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "segoeui.ttf",
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "YuGothR.ttc",
    "malgun.ttf",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "NotoEmoji-Regular.ttf",
    "seguiemj.ttf",
    "Symbola.ttf",
    "FreeSans.ttf",
    "unifont.ttf",
)
"""System fonts with more characters than Pillow's default font, which has no accents; any of them may be missing."""

_NO_CHARACTER = "\uffff"
_INVISIBLE = ("Cf", "Mn", "Me")
"""Unicode categories of characters that only modify others."""


def as_picture(image: Images, extra: str = "generate") -> Image:
    """Convert an image, uint8 `(3, height, width)`, to Pillow; MissingExtraError names `extra` if Pillow is missing."""
    return require("PIL.Image", extra).fromarray(image.permute(1, 2, 0).contiguous().numpy())


def length(text: str, size: int) -> float:
    """Return the width of a text in pixels."""
    return sum(font.getlength(run) for font, run in _runs(text, size))


def write(
    draw: ImageDraw, corner: tuple[float, float], text: str, *, size: int, color: str, right: bool = False
) -> None:
    """Write a text with its upper left (or upper right) corner at `corner`, without characters that no font has."""
    x, y = corner
    ascent = default_font(size).getmetrics()[0]
    x -= length(text, size) if right else 0
    for font, run in _runs(text, size):
        draw.text((x, y + ascent), run, font=font, fill=color, anchor="ls")
        x += font.getlength(run)


def wrapped(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels, between words, or within a word that is longer than a line."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and length(f"{line} {word}", size) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
        while length(line, size) > width and len(line) > 1:
            end = next(i for i in range(2, len(line) + 1) if length(line[:i], size) > width) - 1
            lines.append(line[:end])
            line = line[end:]
    return [*lines, line]


def left_out(text: str) -> str:
    """Return the distinct characters of a text that no font has."""
    unknown = [
        character
        for character in _composed(text)
        if font_of(character, 16) is None and unicodedata.category(character) not in _INVISIBLE
    ]
    return "".join(dict.fromkeys(unknown))


@lru_cache
def default_font(size: int) -> FreeTypeFont:
    """Return Pillow's default font. Raises MissingExtraError without Pillow."""
    return require("PIL.ImageFont", "generate").load_default(size)


@lru_cache(maxsize=4096)
def font_of(character: str, size: int) -> Font | None:
    """Return the first font that has a character, or None."""
    for font in (default_font(size), *(_font(name, size) for name in FILES)):
        if font is not None and (character.isspace() or _shape(font, character) != _shape(font, _NO_CHARACTER)):
            return font
    return None


@lru_cache
def _font(name: str, size: int) -> Font | None:
    """Return a system font, or None if it is not available in this size."""
    try:
        return require("PIL.ImageFont", "generate").truetype(name, size)
    except OSError:
        return None


def _runs(text: str, size: int) -> list[tuple[Font, str]]:
    """Return runs of characters with their font, without those that no font has."""
    fonts = [(font, character) for character in _composed(text) if (font := font_of(character, size)) is not None]
    runs = [list(run) for _, run in groupby(fonts, key=lambda pair: id(pair[0]))]
    return [(run[0][0], "".join(character for _, character in run)) for run in runs]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _shape(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
