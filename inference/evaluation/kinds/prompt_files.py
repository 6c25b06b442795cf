"""Readers of prompt files in the formats that benchmarks use; errors name the line and the column."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prip.errors import InputError, warn
from prip.text.prompts import check_user_prompt
from prip.text_files import read_lines, read_text, stream_of

from .registry import EvaluationPrompt

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LISTED_LINES = 10


class PromptLine(NamedTuple):
    """A prompt as it is written in a file."""

    line: int
    """Line on which it begins, from 1; in a JSON list, the number of the item."""
    prompt: str
    category: str = ""


def read_prompt_lines(path: Path) -> list[PromptLine]:
    """Return the prompts of a text file with one prompt per line."""
    return [PromptLine(number, line) for number, line in enumerate(read_lines(path), 1)]


def read_table(path: Path, column: str, category_column: str = "") -> list[PromptLine]:
    """Return the prompts of a table with the names of the columns in its first line.

    Fields of a .csv file are separated by commas and may be quoted. Those of a .tsv file are separated by tabs and
    never quoted: a quotation mark is part of the prompt.

    An empty `category_column` stands for no categories.

    Raises:
        InputError: A column is missing, or a row has more or fewer fields than there are columns.
    """
    delimiter = DELIMITERS[path.suffix.lower()]
    quoting: dict[str, Any] = {"quoting": csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE}
    reader = csv.reader(stream_of(read_text(path)), delimiter=delimiter, strict=True, **quoting)
    rows: list[PromptLine] = []
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
                    expected = f"{len(names)} columns ({', '.join(names)})"
                    raise InputError(f"{path}, line {line}: expected {expected}, got {len(fields)}")
                category = "" if category_at is None else fields[category_at].strip()
                rows.append(PromptLine(line, fields[prompt_at], category))
    except csv.Error as error:
        raise InputError(f"{path}, line {before + 1}: {error}") from error
    if names is None:
        raise InputError(
            f"{path}: expected the names of the columns, {column} among them, in the first line, got an empty file"
        )
    return rows


def _column(path: Path, names: Sequence[str], wanted: str) -> int:
    if names.count(wanted) != 1:
        count = names.count(wanted)
        raise InputError(
            f"{path}, line 1: expected one column {wanted!r}, got {count or 'none'}; the columns are: "
            f"{', '.join(names)}"
        )
    return list(names).index(wanted)


def read_json_list(path: Path, category: str = "") -> list[PromptLine]:
    """Return the prompts of a JSON list of texts, all of one category. Raises InputError for anything else."""
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {_reason(error)}") from error
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of texts, got a {type(content).__name__}")
    for number, item in enumerate(content, 1):
        if not isinstance(item, str):
            raise InputError(f"{path}, item {number}: expected a text, got {item!r:.80}")
    return [PromptLine(number, item, category) for number, item in enumerate(content, 1)]


def read_json_lines(path: Path, key: str, category_key: str) -> list[PromptLine]:
    """Return the prompts of a file with one JSON object per line. Raises InputError for a line that lacks a key."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number} cannot be read as JSON: {_reason(error)}") from error
        for wanted in (key, category_key):
            if not isinstance(content, dict) or not isinstance(content.get(wanted), str):
                raise InputError(f"{path}, line {number}: expected an object with a text {wanted!r}, got {line:.80}")
        rows.append(PromptLine(number, content[key], content[category_key]))
    return rows


def _reason(error: Exception) -> str:
    where = f"line {error.lineno}, column {error.colno}: " if isinstance(error, json.JSONDecodeError) else ""
    return f"{where}{getattr(error, 'msg', error)}"


def as_prompts(lines: Iterable[PromptLine], source: str) -> list[EvaluationPrompt]:
    """Return the distinct prompts of a file.

    Line breaks and tabs within a prompt become spaces. Lines that are empty or cannot be refined are skipped with a
    PripWarning that lists them.
    `source` names the file or dataset in messages. Raises InputError if no prompt is left.
    """
    prompts: dict[str, EvaluationPrompt] = {}
    skipped: dict[str, list[int]] = {}
    for line in lines:
        text = re.sub(r"[\r\n\t]+", " ", line.prompt).strip()
        try:
            check_user_prompt(text)
        except InputError as error:
            skipped.setdefault(str(error).removeprefix("prompt: "), []).append(line.line)
            continue
        prompts.setdefault(text, EvaluationPrompt(text, line.category))
    for reason, numbers in skipped.items():
        listed = ", ".join(map(str, numbers[:_LISTED_LINES])) + (", ..." if len(numbers) > _LISTED_LINES else "")
        warn(f"prompts: {source}: {len(numbers)} left out: {reason} (line {listed})")
    if not prompts:
        raise InputError(f"{source}: expected at least one prompt, got none")
    return list(prompts.values())
