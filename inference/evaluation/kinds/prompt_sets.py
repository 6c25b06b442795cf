"""Prompt sets: published benchmarks and files of the user's own, with their styles or categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from prip.errors import InputError
from prip.hub.fetch import fetch
from prip.hub.names import split_revision

from .prompt_files import DELIMITERS, as_prompts, read_json_lines, read_json_list, read_prompt_lines, read_table
from .registry import Context, EvaluationPrompt

Style = Literal["anime", "concept-art", "paintings", "photo"]
HPSV2_STYLES: tuple[Style, ...] = ("anime", "concept-art", "paintings", "photo")
HPSV2_PLACE = "zhwang/HPDv2"
PARTI_PLACE, PARTI_FILE = "nateraw/parti-prompts", "PartiPrompts.tsv"
GENEVAL_FILE = "evaluation_metadata.jsonl"


def make_hpsv2(
    name: str, context: Context, *, place: str = HPSV2_PLACE, styles: Sequence[Style] = HPSV2_STYLES
) -> list[EvaluationPrompt]:
    """The kind `hpsv2`: the benchmark of Human Preference Score v2, 800 prompts in each of four styles.

    place: a folder with STYLE.json, each a list of texts, at the top or in benchmark/; or a dataset on the Hub as
    OWNER/NAME[@REVISION]. styles: the styles that are measured.
    """
    if not styles:
        raise InputError(f"styles: expected some of {', '.join(HPSV2_STYLES)}, got none")
    files = [f"benchmark/{style}.json" for style in styles]
    folder = _folder(place, files)
    lines = []
    for style, file in zip(styles, files, strict=True):
        path = folder / file if (folder / file).is_file() else folder / f"{style}.json"
        lines += read_json_list(path, style)
    return as_prompts(lines, place)


def make_parti_prompts(
    name: str, context: Context, *, place: str = PARTI_PLACE, category: Literal["Category", "Challenge"] = "Category"
) -> list[EvaluationPrompt]:
    """The kind `parti-prompts`: PartiPrompts, 1,632 prompts.

    place: PartiPrompts.tsv, its folder, or a dataset on the Hub. category: the column with the categories.
    """
    path = _local(place, PARTI_FILE)
    if not path.exists():
        path = _folder(place, [PARTI_FILE]) / PARTI_FILE
    return as_prompts(read_table(path, "Prompt", category), place)


def make_geneval(name: str, context: Context, *, place: str) -> list[EvaluationPrompt]:
    """The kind `geneval`: GenEval's prompts; the category is the tag (two_object, counting, position, ...).

    place: evaluation_metadata.jsonl, or its folder.
    """
    return as_prompts(read_json_lines(_local(place, GENEVAL_FILE), "prompt", "tag"), place)


def make_drawbench(name: str, context: Context, *, place: str) -> list[EvaluationPrompt]:
    """The kind `drawbench`: DrawBench, 200 prompts. place: a CSV file with the columns Prompts and Category."""
    return as_prompts(read_table(_table(place), "Prompts", "Category"), place)


def make_file(
    name: str, context: Context, *, place: str, column: str = "prompt", category_column: str = ""
) -> list[EvaluationPrompt]:
    """The kind `file`: prompts of the user's own.

    place: a .txt file with one prompt per line, or a .csv or .tsv file with the prompts in `column` and their
    categories, if any, in `category_column`.
    """
    path = Path(place).expanduser()
    if path.suffix.lower() == ".txt":
        if category_column:
            raise InputError(f"category_column: expected none for a text file, got {category_column!r}")
        return as_prompts(read_prompt_lines(path), place)
    return as_prompts(read_table(_table(place), column, category_column), place)


def _table(place: str) -> Path:
    path = Path(place).expanduser()
    if path.suffix.lower() not in DELIMITERS:
        raise InputError(f"place: expected a .csv or .tsv file, got {place!r}")
    return path


def _local(place: str, file: str) -> Path:
    path = Path(place).expanduser()
    return path / file if path.is_dir() else path


def _folder(place: str, files: Sequence[str]) -> Path:
    """Return a local folder, or the folder of a Hub dataset that holds these files."""
    path = Path(place).expanduser()
    if path.is_dir():
        return path
    repository, revision = split_revision(place)
    if repository.count("/") != 1 or path.exists() or path.suffix:
        raise InputError(f"place: expected a folder or the OWNER/NAME of a dataset on the Hub, got {place!r}")
    return fetch(repository, revision, lambda names: [name for name in files if name in names], repo_type="dataset")
