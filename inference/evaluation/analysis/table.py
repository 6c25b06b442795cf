"""A table, and how it is written: in the terminal and in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from prip.errors import require


@dataclass(frozen=True)
class Column:
    """A head, what stands below it, and whether the column holds words or numbers."""

    head: str
    mark: str = ""
    words: bool = False


@dataclass(frozen=True)
class Cell:
    """What is said, the interval of it, and whether it is the best of its column."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of as many cells, a note that says how to read them, and what its best cells are."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    best: str = ""

    def told(self, mark: str = "Bold") -> str:
        """Returns the note, which names the mark of the best cells where there are any."""
        marked = self.best and any(cell.best for row in self.rows for cell in row)
        return " ".join(part for part in (self.note, f"{mark}: {self.best}." if marked else "") if part)


def number(value: float | None, decimals: int, sign: bool = False) -> str:
    """Returns a number of so many decimals, with a + in front where `sign`; "-" for None, and never a negative 0."""
    if value is None:
        return "-"
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    return text if float(text) != 0 else text.lstrip("+-")


def number_range(low: float | None, high: float | None, decimals: int, sign: bool = False) -> str:
    """Returns an interval in words, "" where it has no ends."""
    if low is None or high is None:
        return ""
    return f"{number(low, decimals, sign)} to {number(high, decimals, sign)}"


def p_value(value: float | None) -> str:
    """Returns a p-value to two figures; "-" for None."""
    return "-" if value is None else f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def to_markdown(made: Sequence[Table]) -> str:
    """Returns the tables in Markdown: intervals in brackets, the best of a column bold."""
    blocks = []
    for table in made:
        head = [f"{one.head} ({one.mark})" if one.mark else one.head for one in table.columns]
        align = [":--" if one.words else "--:" for one in table.columns]
        rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
        lines = [f"| {' | '.join(cells)} |" for cells in ([_escaped(text) for text in head], align, *rows)]
        note = ["", table.told()] if table.told() else []
        blocks.append("\n".join([f"**{_escaped(table.title)}**", "", *lines, *note]))
    return "\n\n".join(blocks) + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{_escaped(cell.text)}**" if cell.best else _escaped(cell.text)
    return f"{text} ({cell.interval})" if cell.interval else text


def _escaped(text: str) -> str:
    """What Markdown would read as more than text, with a backslash before it."""
    return "".join(f"\\{letter}" if letter in r"\`*[]<>|" else letter for letter in " ".join(text.split()))


def print_tables(made: Sequence[Table], file: IO[str] | None = None) -> None:
    """Prints the tables: in colour and as wide as the terminal, or plain and as wide as they are where none listens.

    Plain, the best of a column has a * behind it.
    """
    console_module, box = require("rich.console", "evaluate"), require("rich.box", "evaluate")
    stream = file or sys.stdout
    live = stream.isatty()
    console = console_module.Console(file=stream, width=None if live else 1000, highlight=False, soft_wrap=not live)
    for table in made:
        console.print(_rich_table(table, box.SIMPLE_HEAD if live else box.ASCII2, live))
        note = table.told("Bold" if live else "*")
        if note:
            console.print(note, style="dim", markup=False)
        console.print()


def _rich_table(table: Table, box: Any, live: bool) -> Any:
    text = require("rich.text", "evaluate").Text
    made = require("rich.table", "evaluate").Table(title=text(table.title, style="bold"), box=box, title_justify="left")
    for one in table.columns:
        head = text(one.head)
        if one.mark:
            head.append("\n" + one.mark, style="dim italic")
        made.add_column(head, justify="left" if one.words else "right", no_wrap=not (live and one.words))
    for row in table.rows:
        cells = []
        for cell in row:
            plain = f"{cell.text} *" if cell.best and not live else cell.text
            content = text(plain, style="bold green" if cell.best else "")
            if cell.interval:
                content.append("\n" + cell.interval, style="dim")
            cells.append(content)
        made.add_row(*cells)
    return made
