"""The answers as a table: CSV for other programs, text for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

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


def to_text(summary: Mapping[str, Any]) -> str:
    """Returns a summary of `summarise` for the terminal."""
    lines = [f"{summary['answers']} answers of {summary['annotators']} annotators"]
    if summary["preference"]:
        lines += ["", "preference", _line("refiner", "against", "win", "95 % interval", "tie", "loss", "n")]
        for row in summary["preference"]:
            shares = [_share(row[name]) for name in ("win", "tie", "loss")]
            interval = _interval(row, _share)
            lines.append(
                _line(row["refiner"], row["against"], shares[0], interval, shares[1], shares[2], str(row["n"]))
            )
    if summary["relevance"]:
        lines += ["", "relevance, 0 to 2", _line("refiner", "", "mean", "95 % interval", "", "", "n")]
        for row in summary["relevance"]:
            lines.append(_line(row["refiner"], "", _mean(row["mean"]), _interval(row, _mean), "", "", str(row["n"])))
    lines += ["", "agreement (Krippendorff's alpha)"]
    for task, alpha in summary["agreement"].items():
        why_not = "none: it wants questions that two annotators answered, and answers that differ"
        if summary[task]:
            lines.append(f"  {task:<12}{why_not if alpha is None else f'{alpha:.3f}'}")
    return "\n".join(lines)


def _line(refiner: str, against: str, first: str, interval: str, *rest: str) -> str:
    columns = f"  {refiner:<16}{against:<16}{first:>7}  {interval:<18}" + "".join(f"{text:>8}" for text in rest)
    return columns.rstrip()


def _interval(row: Mapping[str, Any], form: Any) -> str:
    return "" if row["low"] is None else f"{form(row['low'])} to {form(row['high'])}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _mean(value: float) -> str:
    return f"{value:.2f}"
