"""An evaluation's result as tables, for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A title, the column heads, and rows of as many cells; the first columns are words, the others numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


def tables(result: dict[str, Any]) -> list[Table]:
    """Return the tables of a result: one for each generator and judge, the steps, the gap and the agreement."""
    made = [_score_table(*place, result["rows"]) for place in _places(result["rows"])]
    if result["steps"]:
        steps = tuple(
            (f"{step['to']} - {step['from']}", step["generator"], step["judge"], *_test_cells(step))
            for step in result["steps"]
        )
        head = ("step", "generator", "judge", "difference", "95 % interval", "p")
        made.append(Table("steps", head, steps, words=3))
    if result["gap_closed"]:
        gaps = tuple((name, *_share_cells(*values)) for name, values in result["gap_closed"].items())
        made.append(
            Table("gap from none to best that rl closes, by truth", ("generator", "share", "95 % interval"), gaps)
        )
    if result.get("agreement"):
        made.append(_agreement_table(**result["agreement"]))
    return made


def _places(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["generator"], row["judge"]) for row in rows))


def _score_table(generator: str, judge: str, rows: Sequence[dict[str, Any]]) -> Table:
    own = [row for row in rows if (row["generator"], row["judge"]) == (generator, judge)]
    cells = tuple((row["refiner"], f"{row['mean']:.3f}", *_test_cells(row)) for row in own)
    title = f"{generator}, judge {judge}, {own[0]['n']} prompts"
    return Table(title, ("refiner", "mean", "- none", "95 % interval", "p"), cells)


def _agreement_table(judge: str, n: int, correlation: float | None, mean_absolute_error: float) -> Table:
    found = "-" if correlation is None else f"{correlation:.3f}"
    head = ("judge", "renders", "correlation", "mean absolute error")
    return Table(
        "agreement with the exact truth, on renders", head, ((judge, str(n), found, f"{mean_absolute_error:.3f}"),)
    )


def _test_cells(row: dict[str, Any]) -> tuple[str, str, str]:
    if row["p_value"] is None:
        return "", "", ""
    return f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}", f"{row['p_value']:.2g}"


def _share_cells(share: float | None, low: float | None, high: float | None) -> tuple[str, str]:
    if share is None:
        return "-", "best is not above none"
    if low is None or high is None:
        return f"{100 * share:.1f} %", "no interval: best may not be above none"
    return f"{100 * share:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"


def to_text(made: Sequence[Table]) -> str:
    """Return the tables for a terminal, columns aligned."""
    return "\n\n".join(_table_text(table) for table in made)


def _table_text(table: Table) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(table.head, *table.rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        parts = [
            cell.ljust(width) if column < table.words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(parts).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([table.title, rule, line(table.head), rule, *map(line, table.rows)])


def to_markdown(made: Sequence[Table]) -> str:
    """Return the tables in Markdown."""
    blocks = []
    for table in made:
        align = [":--" if column < table.words else "--:" for column in range(len(table.head))]
        lines = [f"| {' | '.join(cells)} |" for cells in (table.head, align, *table.rows)]
        blocks.append("\n".join([f"**{table.title}**", "", *lines]))
    return "\n\n".join(blocks) + "\n"
