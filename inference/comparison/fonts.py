"""Text in pictures: each character in the first font that has it; what no font has is left out."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Any

from prip.errors import require

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
"""What systems have with more characters than Pillow's own font, which knows no accents. Any of them may be missing."""

_NO_CHARACTER = "\uffff"
_UNSEEN = ("Cf", "Mn", "Me")
"""Categories of characters that say how others are to be shown."""


def length(text: str, size: int) -> float:
    """Returns how many pixels wide a text is."""
    return sum(font.getlength(piece) for font, piece in _pieces(text, size))


def write(draw: Any, place: tuple[float, float], text: str, size: int, colour: str, right: bool = False) -> None:
    """Writes a text with its upper left corner at a place, or its upper right one.

    Raises MissingExtraError without Pillow.
    """
    x, y = place
    ascent = own_font(size).getmetrics()[0]
    x -= length(text, size) if right else 0
    for font, piece in _pieces(text, size):
        draw.text((x, y + ascent), piece, font=font, fill=colour, anchor="ls")
        x += font.getlength(piece)


def left_out(text: str) -> str:
    """Returns the characters of a text, each once, that no font here has."""
    unknown = [one for one in _composed(text) if font_of(one, 16) is None and unicodedata.category(one) not in _UNSEEN]
    return "".join(dict.fromkeys(unknown))


def own_font(size: int) -> Any:
    """Returns Pillow's own font. Raises MissingExtraError without Pillow."""
    return _own_font(require("PIL.ImageFont", "generate"), size)


@lru_cache(maxsize=4096)
def font_of(character: str, size: int) -> Any:
    """Returns the first font that has a character, None where none has."""
    for font in (own_font(size), *(_font(name, size) for name in FILES)):
        if font is not None and (character.isspace() or _has(font, character)):
            return font
    return None


def _pieces(text: str, size: int) -> list[tuple[Any, str]]:
    """Returns runs of characters with their font, without those that no font has."""
    found = [(font_of(character, size), character) for character in _composed(text)]
    runs = groupby((pair for pair in found if pair[0] is not None), key=lambda pair: id(pair[0]))
    pairs = [list(run) for _, run in runs]
    return [(run[0][0], "".join(character for _, character in run)) for run in pairs]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@lru_cache
def _own_font(module: Any, size: int) -> Any:
    return module.load_default(size)


@lru_cache
def _font(name: str, size: int) -> Any:
    """Returns the font in a file of the system, None where it has none, or none of that size."""
    try:
        return require("PIL.ImageFont", "generate").truetype(name, size)
    except OSError:
        return None


def _has(font: Any, character: str) -> bool:
    """Whether a font shows something else for a character than for one that there is not."""
    return _shape(font, character) != _shape(font, _NO_CHARACTER)


def _shape(font: Any, character: str) -> tuple[Any, bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
