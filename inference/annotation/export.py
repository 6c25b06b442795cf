"""The answers as CSV, for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from .answers import Answer
from .items import RELEVANCE

FIELDS = (
    "annotator",
    "task",
    "item",
    "user_prompt",
    "generator",
    "seed",
    "refiner",
    "refiner_left",
    "refiner_right",
    "answer",
    "time",
    "seconds",
)


def to_csv(answers: Sequence[Answer]) -> str:
    """Returns one row a final answer. `refiner` is filled for relevance, `refiner_left` and `_right` for preference."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        row = dict(vars(answer)) | {"refiner": ""}
        if answer.task == RELEVANCE:
            row |= {"refiner": answer.refiner_left, "refiner_left": ""}
        writer.writerow(row)
    return text.getvalue()
