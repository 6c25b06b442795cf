"""The picture that `prip compare` makes: plain and refined images side by side, with scores, prompts below."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prip.errors import InputError, require
from prip.protocols import Images

from .pixels import as_picture

SIDE = 320
"""Images that are smaller are magnified by a whole number to at most this; larger ones stay as they are."""
MARGIN, GAP = 28, 16
TITLE, TEXT, SMALL = 20, 17, 14
HEAD_LINE, SCORE_LINE, PROMPT_LINE, PROMPT_GAP = 32, 20, 23, 14
PAPER, INK, FAINT, BETTER = "#ffffff", "#1c1f26", "#6b7280", "#15803d"


@dataclass(frozen=True)
class Column:
    """A prompt with its images and what each reward gives them, one score an image."""

    title: str
    prompt: str
    images: Images
    scores: Mapping[str, Sequence[float]]


def file_format(suffix: str) -> str:
    """Return Pillow's name for what a file ending in `suffix` holds. Raises InputError for one that it cannot write."""
    image_module = require("PIL.Image", "generate")
    name = image_module.registered_extensions().get(suffix.lower())
    if name is None or name not in image_module.SAVE:
        raise InputError(f"the output's ending must be that of an image, as in cat.png; {suffix or 'none'} came")
    return name


def draw_sheet(columns: Sequence[Column], seeds: Sequence[int], format_name: str = "PNG") -> bytes:
    """Return a picture with one row a seed and one column a prompt; the best score of a row stands out in colour.

    `format_name` is Pillow's. Raises MissingExtraError without Pillow.
    """
    image_module, draw_module = require("PIL.Image", "generate"), require("PIL.ImageDraw", "generate")
    height, width = columns[0].images.shape[-2:]
    scale = max(1, SIDE // max(height, width))
    height, width = height * scale, width * scale
    names = list(columns[0].scores)
    inner = len(columns) * width + (len(columns) - 1) * GAP
    measure = draw_module.Draw(image_module.new("RGB", (1, 1)))
    texts = [_wrap(measure, column.prompt, _font(TEXT), inner) for column in columns]
    row_height = height + 8 + SCORE_LINE * (len(names) + 1) + GAP
    top, bottom = MARGIN + HEAD_LINE, sum(PROMPT_GAP + SCORE_LINE + PROMPT_LINE * len(lines) for lines in texts)
    size = (inner + 2 * MARGIN, top + row_height * len(seeds) + bottom - PROMPT_GAP + MARGIN)
    sheet = image_module.new("RGB", size, PAPER)
    draw = draw_module.Draw(sheet)
    for place, column in enumerate(columns):
        left = MARGIN + place * (width + GAP)
        draw.text((left, MARGIN), column.title, font=_font(TITLE), fill=INK, anchor="la")
        for row, seed in enumerate(seeds):
            y = top + row * row_height
            pixels = as_picture(column.images[row])
            sheet.paste(pixels.resize((width, height), image_module.Resampling.NEAREST), (left, y))
            lines = [("seed", str(seed), INK)]
            for name in names:
                highest = max(other.scores[name][row] for other in columns)
                score = column.scores[name][row]
                colour = BETTER if score == highest and len(columns) > 1 else INK
                lines.append((name, f"{score:.2f}", colour))
            for line, (label, value, colour) in enumerate(lines):
                at = y + height + 8 + SCORE_LINE * line
                draw.text((left, at), label, font=_font(SMALL), fill=FAINT, anchor="la")
                draw.text((left + width, at), value, font=_font(SMALL), fill=colour, anchor="ra")
    y = top + row_height * len(seeds)
    for column, wrapped in zip(columns, texts, strict=True):
        draw.text((MARGIN, y), column.title, font=_font(SMALL), fill=FAINT, anchor="la")
        for line, text in enumerate(wrapped):
            draw.text((MARGIN, y + SCORE_LINE + PROMPT_LINE * line), text, font=_font(TEXT), fill=INK, anchor="la")
        y += SCORE_LINE + PROMPT_LINE * len(wrapped) + PROMPT_GAP
    buffer = io.BytesIO()
    sheet.save(buffer, format=format_name)
    return buffer.getvalue()


def _font(size: int) -> Any:
    return require("PIL.ImageFont", "generate").load_default(size)


def _wrap(draw: Any, text: str, font: Any, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels, between words, or within one that is longer than a line."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and draw.textlength(f"{line} {word}", font=font) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
        while draw.textlength(line, font=font) > width and len(line) > 1:
            end = max(i for i in range(1, len(line)) if i == 1 or draw.textlength(line[:i], font=font) <= width)
            lines.append(line[:end])
            line = line[end:]
    return [*lines, line]
