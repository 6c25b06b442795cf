"""A table, and how it is written to the terminal and as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from prip.errors import require


@dataclass(frozen=True)
class Column:
    """A heading, a remark below it, and whether the column holds words or numbers."""

    head: str
    mark: str = ""
    words: bool = False


@dataclass(frozen=True)
class Cell:
    """A text or figure, its interval, and whether it is the best of its column."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of cells, a note on how to read them, and what the best cells are."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    best: str = ""

    def full_note(self, mark: str = "Bold") -> str:
        """Return the note, including how the best cells are marked, if any."""
        marked = self.best and any(cell.best for row in self.rows for cell in row)
        return " ".join(part for part in (self.note, f"{mark}: {self.best}." if marked else "") if part)


def number(value: float | None, decimals: int, sign: bool = False) -> str:
    """Return a number with this many decimals, signed if `sign`; "-" for None, and never a negative 0."""
    if value is None:
        return "-"
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    return text if float(text) != 0 else text.lstrip("+-")


def number_range(low: float | None, high: float | None, decimals: int, sign: bool = False) -> str:
    """Return an interval in words, "" without ends."""
    if low is None or high is None:
        return ""
    return f"{number(low, decimals, sign)} to {number(high, decimals, sign)}"


def p_value(value: float | None) -> str:
    """Return a p-value with two significant digits; "-" for None."""
    return "-" if value is None else f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def to_markdown(tables: Sequence[Table]) -> str:
    """Return the tables as Markdown, with intervals in brackets and the best of a column in bold."""
    blocks = []
    for table in tables:
        head = [f"{column.head} ({column.mark})" if column.mark else column.head for column in table.columns]
        align = [":--" if column.words else "--:" for column in table.columns]
        rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
        lines = [f"| {' | '.join(cells)} |" for cells in ([_escaped(text) for text in head], align, *rows)]
        note = ["", table.full_note()] if table.full_note() else []
        blocks.append("\n".join([f"**{_escaped(table.title)}**", "", *lines, *note]))
    return "\n\n".join(blocks) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{_escaped(cell.text)}**" if cell.best else _escaped(cell.text)
    return f"{text} ({cell.interval})" if cell.interval else text


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\`*[]<>|" else letter for letter in " ".join(text.split()))


def print_tables(tables: Sequence[Table], file: IO[str] | None = None) -> None:
    """Print the tables: in colour and as wide as the terminal, or plain and unwrapped when the output is a file.

    In plain tables, a * follows the best of a column.
    """
    console_module, box = require("rich.console", "evaluate"), require("rich.box", "evaluate")
    stream = file or sys.stdout
    terminal = stream.isatty()
    console = console_module.Console(
        file=stream, width=None if terminal else 1000, highlight=False, soft_wrap=not terminal
    )
    for table in tables:
        console.print(_rich_table(table, box.SIMPLE_HEAD if terminal else box.ASCII2, terminal))
        note = table.full_note("Bold" if terminal else "*")
        if note:
            console.print(note, style="dim", markup=False)
        console.print()


def _rich_table(table: Table, box: Any, terminal: bool) -> Any:
    text = require("rich.text", "evaluate").Text
    rich_table = require("rich.table", "evaluate").Table(
        title=text(table.title, style="bold"), box=box, title_justify="left"
    )
    for column in table.columns:
        head = text(column.head)
        if column.mark:
            head.append("\n" + column.mark, style="dim italic")
        rich_table.add_column(
            head, justify="left" if column.words else "right", no_wrap=not (terminal and column.words)
        )
    for row in table.rows:
        cells = []
        for cell in row:
            plain = f"{cell.text} *" if cell.best and not terminal else cell.text
            content = text(plain, style="bold green" if cell.best else "")
            if cell.interval:
                content.append("\n" + cell.interval, style="dim")
            cells.append(content)
        rich_table.add_row(*cells)
    return rich_table
