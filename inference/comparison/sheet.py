"""The picture that `prip compare` makes: plain and refined images side by side, with scores, prompts below."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prip.errors import InputError, require
from prip.protocols import Images

from .fonts import length, write
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
    texts = [_wrap(column.prompt, TEXT, inner) for column in columns]
    row_height = height + 8 + SCORE_LINE * (len(names) + 1) + GAP
    top, bottom = MARGIN + HEAD_LINE, sum(PROMPT_GAP + SCORE_LINE + PROMPT_LINE * len(lines) for lines in texts)
    size = (inner + 2 * MARGIN, top + row_height * len(seeds) + bottom - PROMPT_GAP + MARGIN)
    sheet = image_module.new("RGB", size, PAPER)
    draw = draw_module.Draw(sheet)
    for place, column in enumerate(columns):
        left = MARGIN + place * (width + GAP)
        write(draw, (left, MARGIN), column.title, TITLE, INK)
        for row, seed in enumerate(seeds):
            y = top + row * row_height
            pixels = as_picture(column.images[row])
            sheet.paste(pixels.resize((width, height), image_module.Resampling.NEAREST), (left, y))
            lines = [("seed", str(seed), INK)]
            for name in names:
                shown = f"{column.scores[name][row]:.2f}"
                lines.append((name, shown, BETTER if shown == _winner(columns, name, row) else INK))
            for line, (label, value, colour) in enumerate(lines):
                at = y + height + 8 + SCORE_LINE * line
                write(draw, (left, at), label, SMALL, FAINT)
                write(draw, (left + width, at), value, SMALL, colour, right=True)
    y = top + row_height * len(seeds)
    for column, wrapped in zip(columns, texts, strict=True):
        write(draw, (MARGIN, y), column.title, SMALL, FAINT)
        for line, text in enumerate(wrapped):
            write(draw, (MARGIN, y + SCORE_LINE + PROMPT_LINE * line), text, TEXT, INK)
        y += SCORE_LINE + PROMPT_LINE * len(wrapped) + PROMPT_GAP
    buffer = io.BytesIO()
    sheet.save(buffer, format=format_name)
    return buffer.getvalue()


def _winner(columns: Sequence[Column], name: str, row: int) -> str | None:
    """Return the highest score of a row as it is shown, None where several columns have it, or there is but one."""
    shown = [f"{column.scores[name][row]:.2f}" for column in columns]
    best = max(shown, key=float)
    return best if len(shown) > 1 and shown.count(best) == 1 else None


def _wrap(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels, between words, or within one that is longer than a line."""
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
