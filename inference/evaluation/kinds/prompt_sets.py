"""Prompt sets: the benchmarks that others have published, and files of one's own; style or category is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prip.errors import InputError
from prip.hub.fetch import fetch
from prip.hub.names import split_revision

from .prompt_files import DELIMITERS, as_prompts, read_json_lines, read_json_list, read_lines, read_table
from .registry import Context, EvaluationPrompt

HPSV2_STYLES = ("anime", "concept-art", "paintings", "photo")
HPSV2_PLACE = "zhwang/HPDv2"
PARTI_PLACE, PARTI_FILE = "nateraw/parti-prompts", "PartiPrompts.tsv"
PARTI_CATEGORIES = ("Category", "Challenge")
GENEVAL_FILE = "evaluation_metadata.jsonl"


def make_hpsv2(
    name: str, context: Context, *, place: str = HPSV2_PLACE, styles: Sequence[str] = HPSV2_STYLES
) -> list[EvaluationPrompt]:
    """The kind `hpsv2`: the benchmark of Human Preference Score v2, 800 prompts of each of four styles.

    place: a folder that holds STYLE.json, each a list of texts, there or in benchmark/; or a dataset of the Hub, as
    OWNER/NAME[@REVISION]. styles: those that are measured.
    """
    unknown = [style for style in styles if style not in HPSV2_STYLES]
    if unknown or isinstance(styles, str) or not styles:
        raise InputError(f"prompts: styles must be of {', '.join(HPSV2_STYLES)}, they are {styles!r}")
    files = [f"benchmark/{style}.json" for style in styles]
    folder = _folder(place, files)
    rows = []
    for style, file in zip(styles, files, strict=True):
        path = folder / file if (folder / file).is_file() else folder / f"{style}.json"
        rows += read_json_list(path, style)
    return as_prompts(rows, place)


def make_parti_prompts(
    name: str, context: Context, *, place: str = PARTI_PLACE, category: str = PARTI_CATEGORIES[0]
) -> list[EvaluationPrompt]:
    """The kind `parti-prompts`: PartiPrompts, 1,632 prompts.

    place: PartiPrompts.tsv, its folder, or a dataset of the Hub. category: the column, Category or Challenge.
    """
    if category not in PARTI_CATEGORIES:
        raise InputError(f"prompts: category must be one of {', '.join(PARTI_CATEGORIES)}, it is {category!r}")
    return as_prompts(read_table(_file(place, PARTI_FILE), "Prompt", category), place)


def make_geneval(name: str, context: Context, *, place: str) -> list[EvaluationPrompt]:
    """The kind `geneval`: GenEval's prompts; the category is the tag (two_object, counting, position, ...).

    place: evaluation_metadata.jsonl, or its folder.
    """
    return as_prompts(read_json_lines(_local(place, GENEVAL_FILE), "prompt", "tag"), place)


def make_drawbench(name: str, context: Context, *, place: str) -> list[EvaluationPrompt]:
    """The kind `drawbench`: DrawBench, 200 prompts. place: a CSV file with the columns Prompts and Category."""
    path = _table(place)
    return as_prompts(read_table(path, "Prompts", "Category"), place)


def make_file(
    name: str, context: Context, *, place: str, column: str = "prompt", category_column: str = ""
) -> list[EvaluationPrompt]:
    """The kind `file`: prompts of one's own.

    place: .txt, one prompt a line, or .csv or .tsv, whose prompts are in `column`; their categories, if any, in
    `category_column`.
    """
    path = Path(place).expanduser()
    if path.suffix.lower() == ".txt":
        if category_column:
            raise InputError(f"prompts: category_column: {place} is a text file, it has no columns")
        return as_prompts(read_lines(path), place)
    return as_prompts(read_table(_table(place), column, category_column), place)


def _table(place: str) -> Path:
    path = Path(place).expanduser()
    if path.suffix.lower() not in DELIMITERS:
        raise InputError(f"prompts: place: wanted a file that ends in .csv or .tsv, got {place!r}")
    return path


def _local(place: str, file: str) -> Path:
    path = Path(place).expanduser()
    return path / file if path.is_dir() else path


def _file(place: str, file: str) -> Path:
    """Returns a file here, or that of a dataset of the Hub."""
    path = _local(place, file)
    return path if path.exists() else _folder(place, [file]) / file


def _folder(place: str, files: Sequence[str]) -> Path:
    """Returns a folder here, or that of a dataset of the Hub with these files in it."""
    path = Path(place).expanduser()
    if path.is_dir():
        return path
    repository, revision = split_revision(place)
    if repository.count("/") != 1 or path.exists() or path.suffix:
        raise InputError(f"prompts: place: wanted a folder or OWNER/NAME of a dataset on the Hub, got {place!r}")
    return fetch(repository, revision, lambda names: [name for name in files if name in names], repo_type="dataset")
