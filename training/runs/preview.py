"""A picture of what the policy does: plain images above refined ones, with their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from prip.files import replace_file

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
    """Writes the PNG: a column for each user prompt."""
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [(_wrap(one.user_prompt, font), _wrap(f"{one.refined_prompt}  [{one.gain:+.2f}]", font)) for one in columns]
    upper = _LINE * max(len(plain) for plain, _ in texts)
    lower = _LINE * max(len(refined) for _, refined in texts)
    height = 2 * _SIDE + upper + lower + 5 * _GAP
    canvas = Image.new("RGB", (_GAP + len(columns) * (_SIDE + _GAP), height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for place, (one, (plain, refined)) in enumerate(zip(columns, texts, strict=True)):
        left, second = _GAP + place * (_SIDE + _GAP), 3 * _GAP + _SIDE + upper
        canvas.paste(_enlarged(one.plain), (left, _GAP))
        draw.multiline_text((left, 2 * _GAP + _SIDE), "\n".join(plain), fill=_PLAIN, font=font)
        canvas.paste(_enlarged(one.refined), (left, second))
        draw.multiline_text((left, second + _SIDE + _GAP), "\n".join(refined), fill=_REFINED, font=font)
    replace_file(path, lambda temporary: canvas.save(temporary, format="PNG"))


def _enlarged(image: Tensor) -> Image.Image:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    filter_ = Image.Resampling.NEAREST if picture.width < _SIDE else Image.Resampling.LANCZOS
    return picture.resize((_SIDE, _SIDE), filter_)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Returns the lines into which `text` falls at the width of an image; a longer word is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _SIDE:
            lines[-1] = longer
            continue
        while font.getlength(word) > _SIDE:
            word = word[:-1]
        lines.append(word)
    return lines[1:] if not lines[0] else lines
