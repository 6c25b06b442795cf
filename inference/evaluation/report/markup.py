"""Pieces of a report's HTML; every text from outside passes through `escaped`."""

from __future__ import annotations

import difflib
import html
import re
from collections.abc import Iterable, Sequence

from ..analysis.table import Cell, Column, Table

_WORDS = re.compile(r"\s+|[^\s,.;:!?]+|[,.;:!?]")


def escaped(text: object) -> str:
    """Returns a text that HTML shows as it is, in an attribute as well."""
    return html.escape(str(text), quote=True)


def signed(text: str) -> str:
    """Returns a number's text with a true minus sign."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\N{MINUS SIGN}", text)


def marked(user_prompt: str, refined_prompt: str) -> str:
    """Returns a refined prompt in HTML, what the refiner added in <mark>.

    A prompt that goes on where the user stopped is marked from there; of another wording, each word that the user's
    prompt does not have at that place.
    """
    kept = user_prompt.rstrip(" .,")
    if refined_prompt.startswith(kept):
        added = refined_prompt[len(kept) :]
        return escaped(kept) + (f"<mark>{escaped(added)}</mark>" if added.strip(" .,") else escaped(added))
    before, after = _WORDS.findall(user_prompt), _WORDS.findall(refined_prompt)
    matcher = difflib.SequenceMatcher(None, [word.lower() for word in before], [w.lower() for w in after], False)
    parts = []
    for kind, _, _, start, end in matcher.get_opcodes():
        text = escaped("".join(after[start:end]))
        parts.append(text if kind == "equal" or not text.strip() else f"<mark>{text}</mark>")
    return "".join(parts)


def table_html(table: Table, name: str, named: bool = True) -> str:
    """Returns a table that scrolls in its own frame, which the keyboard reaches; `name` is its id on the page.

    named: its title is to be seen; a fold that it lies in shows it else.
    """
    head = "".join(_head(column) for column in table.columns)
    body = "".join(f"<tr>{''.join(_cells(row, table.columns))}</tr>" for row in table.rows)
    title = escaped(table.title)
    note = f'<p class="note">{escaped(table.told())}</p>' if table.told() else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table id="{name}">'
        f'<caption class="{"" if named else "hidden"}"><span>{title}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _head(column: Column) -> str:
    mark = f'<span class="role {_role(column.mark)}">{escaped(column.mark)}</span>' if column.mark else ""
    return f'<th scope="col" class="{"words" if column.words else "number"}">{escaped(column.head)}{mark}</th>'


def _role(mark: str) -> str:
    return mark.replace(" ", "-") if mark in ("trained against", "held out", "fidelity") else ""


def _cells(row: Sequence[Cell], columns: Sequence[Column]) -> Iterable[str]:
    for place, (cell, column) in enumerate(zip(row, columns, strict=True)):
        if column.words:
            role = _role(cell.text)
            text = f'<span class="role {role}">{escaped(cell.text)}</span>' if role else escaped(cell.text)
            yield f'<th scope="row">{text}</th>' if place == 0 else f'<td class="words">{text}</td>'
            continue
        text = signed(escaped(cell.text))
        text = f"<strong>{text}</strong>" if cell.best else text
        interval = f'<span class="interval">{signed(escaped(cell.interval))}</span>' if cell.interval else ""
        yield f'<td class="number">{text}{interval}</td>'


def fold(title: str, content: str, opened: bool = False) -> str:
    """Returns HTML that a click on `title`, plain text, unfolds."""
    return f"<details{' open' if opened else ''}><summary>{escaped(title)}</summary>{content}</details>"


def section(name: str, title: str, lead: str, content: str) -> str:
    """Returns a section of the page with an id, a heading and a sentence in plain text; "" where it has no content."""
    if not content:
        return ""
    return f'<section id="{name}"><h2>{escaped(title)}</h2><p class="lead">{escaped(lead)}</p>{content}</section>'
