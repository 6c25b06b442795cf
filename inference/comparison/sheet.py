"""The picture of `prip compare`: plain and refined images side by side, with scores, and the prompts below."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prip.errors import InputError, require
from prip.pictures import as_picture, wrapped, write
from prip.protocols import Images

SIDE = 320
"""Smaller images are magnified by a whole number to at most this size; larger ones keep theirs."""
MARGIN, GAP = 28, 16
TITLE, TEXT, SMALL = 20, 17, 14
HEAD_LINE, SCORE_LINE, PROMPT_LINE, PROMPT_GAP = 32, 20, 23, 14
PAPER, INK, FAINT, BETTER = "#ffffff", "#1c1f26", "#6b7280", "#15803d"


@dataclass(frozen=True)
class Column:
    """A prompt with its images, and one score per image for each reward, NaN if it could not be scored."""

    title: str
    prompt: str
    images: Images
    scores: Mapping[str, Sequence[float]]


def file_format(suffix: str) -> str:
    """Return Pillow's name of the image type for a suffix. Raises InputError for one that it cannot write."""
    image_module = require("PIL.Image", "generate")
    name = image_module.registered_extensions().get(suffix.lower())
    if name is None or name not in image_module.SAVE:
        raise InputError(f"output: expected an image type such as cat.png, got {suffix or 'none'!r}")
    return name


def draw_sheet(columns: Sequence[Column], seeds: Sequence[int], format_name: str = "PNG") -> bytes:
    """Return a picture with one row per seed and one column per prompt; the best score of a row is coloured.

    format_name: Pillow's name of the image type. Raises MissingExtraError without Pillow.
    """
    image_module, draw_module = require("PIL.Image", "generate"), require("PIL.ImageDraw", "generate")
    height, width = columns[0].images.shape[-2:]
    scale = max(1, SIDE // max(height, width))
    height, width = height * scale, width * scale
    names = list(columns[0].scores)
    inner = len(columns) * width + (len(columns) - 1) * GAP
    texts = [wrapped(column.prompt, TEXT, inner) for column in columns]
    row_height = height + 8 + SCORE_LINE * (len(names) + 1) + GAP
    top, bottom = MARGIN + HEAD_LINE, sum(PROMPT_GAP + SCORE_LINE + PROMPT_LINE * len(lines) for lines in texts)
    size = (inner + 2 * MARGIN, top + row_height * len(seeds) + bottom - PROMPT_GAP + MARGIN)
    sheet = image_module.new("RGB", size, PAPER)
    draw = draw_module.Draw(sheet)
    for index, column in enumerate(columns):
        left = MARGIN + index * (width + GAP)
        write(draw, (left, MARGIN), column.title, size=TITLE, color=INK)
        for row, seed in enumerate(seeds):
            y = top + row * row_height
            pixels = as_picture(column.images[row])
            sheet.paste(pixels.resize((width, height), image_module.Resampling.NEAREST), (left, y))
            lines = [("seed", str(seed), INK)]
            for name in names:
                shown = _as_text(column.scores[name][row])
                lines.append((name, shown, BETTER if shown == _winner(columns, name, row) else INK))
            for line, (label, value, colour) in enumerate(lines):
                top_of_line = y + height + 8 + SCORE_LINE * line
                write(draw, (left, top_of_line), label, size=SMALL, color=FAINT)
                write(draw, (left + width, top_of_line), value, size=SMALL, color=colour, right=True)
    y = top + row_height * len(seeds)
    for column, prompt_lines in zip(columns, texts, strict=True):
        write(draw, (MARGIN, y), column.title, size=SMALL, color=FAINT)
        for line, text in enumerate(prompt_lines):
            write(draw, (MARGIN, y + SCORE_LINE + PROMPT_LINE * line), text, size=TEXT, color=INK)
        y += SCORE_LINE + PROMPT_LINE * len(prompt_lines) + PROMPT_GAP
    buffer = io.BytesIO()
    sheet.save(buffer, format=format_name)
    return buffer.getvalue()


def _winner(columns: Sequence[Column], name: str, row: int) -> str | None:
    """Return the highest score of a row as it is shown, or None for a tie, a single column or a missing score."""
    scores = [column.scores[name][row] for column in columns]
    if any(math.isnan(score) for score in scores):
        return None
    shown = [_as_text(score) for score in scores]
    best = max(shown, key=float)
    return best if len(shown) > 1 and shown.count(best) == 1 else None


def _as_text(score: float) -> str:
    return "no score" if math.isnan(score) else f"{score:.2f}"
