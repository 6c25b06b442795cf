"""A preview of the policy: plain images above refined ones, with their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from prip.files import replace_file
from prip.pictures import as_picture, wrapped, write

_SIDE, _GAP, _LINE, _FONT_SIZE = 224, 12, 16, 13
_BACKGROUND, _PLAIN, _REFINED = "white", "#666666", "#000000"


@dataclass(frozen=True)
class Column:
    """A user prompt's pair of images, each uint8 (3, height, width), and its gain."""

    user_prompt: str
    refined_prompt: str
    plain: Tensor
    refined: Tensor
    gain: float


def write_preview(path: Path, columns: Sequence[Column]) -> None:
    """Write the PNG, with one column per user prompt."""
    captions = [
        [
            wrapped(text, _FONT_SIZE, _SIDE)
            for text in (column.user_prompt, f"{column.refined_prompt}  [{column.gain:+.2f}]")
        ]
        for column in columns
    ]
    upper, lower = (_LINE * max(len(caption[row]) for caption in captions) for row in (0, 1))
    height = 2 * _SIDE + upper + lower + 5 * _GAP
    canvas = Image.new("RGB", (_GAP + len(columns) * (_SIDE + _GAP), height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for index, (column, caption) in enumerate(zip(columns, captions, strict=True)):
        left = _GAP + index * (_SIDE + _GAP)
        tops = (_GAP, 3 * _GAP + _SIDE + upper)
        for image, top, lines, colour in zip(
            (column.plain, column.refined), tops, caption, (_PLAIN, _REFINED), strict=True
        ):
            canvas.paste(_enlarged(image), (left, top))
            for number, line in enumerate(lines):
                corner = (left, top + _SIDE + _GAP + _LINE * number)
                write(draw, corner, line, size=_FONT_SIZE, color=colour)
    replace_file(path, lambda temporary: canvas.save(temporary, format="PNG"))


def _enlarged(image: Tensor) -> Image.Image:
    picture = as_picture(image)
    resampling = Image.Resampling.NEAREST if picture.width < _SIDE else Image.Resampling.LANCZOS
    return picture.resize((_SIDE, _SIDE), resampling)
