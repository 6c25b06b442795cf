"""Tables of the human evaluation: `people` in summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .table import Cell, Column, Table, number, number_range

Record = Mapping[str, Any]


def people_tables(people: Record | None) -> list[Table]:
    """Return the tables of preference, relevance and agreement that have rows; `people` is from `people_summary`."""
    if people is None:
        return []
    by = f"{people['annotators']} annotators gave {people['answers']} answers without knowing the images' refiners."
    return [table for table in (_preference(people, by), _relevance(people, by), _agreement(people)) if table.rows]


def _preference(people: Record, by: str) -> Table:
    rows = tuple(
        (
            Cell(row["refiner"]),
            Cell(row["against"]),
            Cell(_percent(row["win"]), _percents(row["low"], row["high"])),
            Cell(_percent(row["tie"])),
            Cell(_percent(row["loss"])),
            Cell(str(row["n"])),
        )
        for row in people["preference"]
    )
    columns = (Column("refiner", words=True), Column("against", words=True), *map(Column, ("win", "tie", "loss", "n")))
    return Table(
        "Human preference", columns, rows, f"Shares of n answers; wins with a 95 % interval over prompts. {by}"
    )


def _relevance(people: Record, by: str) -> Table:
    rows = tuple(
        (
            Cell(row["refiner"]),
            Cell(number(row["mean"], 2), number_range(row["low"], row["high"], 2)),
            Cell(str(row["n"])),
        )
        for row in people["relevance"]
    )
    columns = (Column("refiner", words=True), Column("relevance", "0 to 2"), Column("n"))
    note = f"Means of n answers with 95 % intervals over prompts, from 0 (shows nothing of the prompt) to 2 (all). {by}"
    return Table("Human relevance", columns, rows, note)


def _agreement(people: Record) -> Table:
    rows = tuple((Cell(task), Cell(number(alpha, 3))) for task, alpha in people["agreement"].items() if people[task])
    columns = (Column("task", words=True), Column("Krippendorff's alpha"))
    note = (
        "1 for full agreement, 0 for chance; undefined unless several annotators answered the same questions, not all "
        "alike."
    )
    return Table("Agreement of annotators", columns, rows, note)


def _percent(share: float) -> str:
    return f"{number(100 * share, 1)} %"


def _percents(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return f"{number_range(100 * low, 100 * high, 1)} %"
