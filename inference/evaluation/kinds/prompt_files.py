"""Files of prompts in the formats in which people publish them; what is wrong is told with its line and column."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prip.errors import InputError, warn
from prip.text.prompts import check_user_prompt

from .registry import EvaluationPrompt

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_TOLD_LINES = 10


class Row(NamedTuple):
    """A prompt as a file holds it."""

    line: int
    """Where it begins, from 1; of a JSON list, the number of the item."""
    prompt: str
    category: str = ""


def read_text(path: Path) -> str:
    """Returns a UTF-8 file, a mark of the byte order removed. Raises InputError, with the line, for what is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"prompts: {path} cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"prompts: {path}, line {line}: byte {content[error.start]:#04x} is no UTF-8") from error


def read_lines(path: Path) -> list[Row]:
    """Returns the rows of a text file, one prompt a line."""
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    if not lines[-1]:
        lines.pop()  # behind the last line's end
    return [Row(number, line) for number, line in enumerate(lines, 1)]


def read_table(path: Path, column: str, category_column: str = "") -> list[Row]:
    """Returns the rows of a table whose first line names the columns.

    .csv has commas, and quotation marks around what holds one; .tsv has tabs and no quoting: a quotation mark there is
    part of the prompt. category_column: empty for none. Raises InputError for a missing column, and for a row that has
    more or fewer fields than columns.
    """
    delimiter = DELIMITERS[path.suffix.lower()]
    quoting: dict[str, Any] = {"quoting": csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE}
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True, **quoting)
    rows: list[Row] = []
    names: list[str] | None = None
    before = 0
    try:
        for fields in reader:
            line, before = before + 1, reader.line_num
            if names is None:
                names = [name.strip() for name in fields]
                prompt_at = _column(path, names, column)
                category_at = _column(path, names, category_column) if category_column else None
            elif fields:
                if len(fields) != len(names):
                    wanted = f"{len(names)} columns ({', '.join(names)})"
                    raise InputError(f"prompts: {path}, line {line}: wanted {wanted}, got {len(fields)}")
                category = "" if category_at is None else fields[category_at].strip()
                rows.append(Row(line, fields[prompt_at], category))
    except csv.Error as error:
        raise InputError(f"prompts: {path}, line {before + 1}: {error}") from error
    if names is None:
        raise InputError(f"prompts: {path} is empty; the first line should name the columns, {column} among them")
    return rows


def _column(path: Path, names: Sequence[str], wanted: str) -> int:
    if names.count(wanted) != 1:
        count = names.count(wanted)
        raise InputError(
            f"prompts: {path}, line 1: wanted one column {wanted!r}, got {count or 'none'}; the columns are: "
            f"{', '.join(names)}"
        )
    return list(names).index(wanted)


def read_json_list(path: Path, category: str = "") -> list[Row]:
    """Returns the rows of a JSON list of texts, all of one category. Raises InputError for anything else."""
    try:
        held = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"prompts: {path} cannot be read as JSON: {_reason(error)}") from error
    if not isinstance(held, list):
        raise InputError(f"prompts: {path}: wanted a list of texts, got a {type(held).__name__}")
    for number, item in enumerate(held, 1):
        if not isinstance(item, str):
            raise InputError(f"prompts: {path}, item {number}: wanted a text, got {item!r:.80}")
    return [Row(number, item, category) for number, item in enumerate(held, 1)]


def read_json_lines(path: Path, key: str, category_key: str) -> list[Row]:
    """Returns the rows of a file with a JSON object a line. Raises InputError for a line that lacks one of the keys."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            held = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"prompts: {path}, line {number} cannot be read as JSON: {_reason(error)}") from error
        for wanted in (key, category_key):
            if not isinstance(held, dict) or not isinstance(held.get(wanted), str):
                raise InputError(
                    f"prompts: {path}, line {number}: wanted an object with a text {wanted!r}, got {line:.80}"
                )
        rows.append(Row(number, held[key], held[category_key]))
    return rows


def _reason(error: Exception) -> str:
    where = f"line {error.lineno}, column {error.colno}: " if isinstance(error, json.JSONDecodeError) else ""
    return f"{where}{getattr(error, 'msg', error)}"


def as_prompts(rows: Iterable[Row], where: str) -> list[EvaluationPrompt]:
    """Returns the prompts of rows; of equal texts the first.

    Line breaks and tabs within a prompt become spaces. Rows that are empty, or hold no prompt that can be refined, are
    left out, with a PripWarning that tells their lines. where: of the warning. Raises InputError where none are left.
    """
    found: dict[str, EvaluationPrompt] = {}
    left_out: dict[str, list[int]] = {}
    for row in rows:
        text = re.sub(r"[\r\n\t]+", " ", row.prompt).strip()
        try:
            check_user_prompt(text)
        except InputError as error:
            left_out.setdefault(str(error).removeprefix("prompt "), []).append(row.line)
            continue
        found.setdefault(text, EvaluationPrompt(text, row.category))
    for why, lines in left_out.items():
        told = ", ".join(map(str, lines[:_TOLD_LINES])) + (", ..." if len(lines) > _TOLD_LINES else "")
        warn(f"prompts: {where}: {len(lines)} left out, each {why} (line {told})")
    if not found:
        raise InputError(f"prompts: {where} holds no prompt")
    return list(found.values())
