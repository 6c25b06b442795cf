"""Chunks of prompts; the table of each is saved as one file, so that a killed run resumes with the next one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from prip.files import check_target, write_output

from ..kinds.registry import EvaluationPrompt

Numbered = Sequence[tuple[int, EvaluationPrompt]]
"""Prompts with their numbers in the whole set."""


def chunks(prompts: Sequence[EvaluationPrompt], size: int) -> Iterator[tuple[int, Numbered]]:
    """Yield the number of each chunk and its prompts."""
    numbered = list(enumerate(prompts))
    for start in range(0, len(numbered), size):
        yield start // size, numbered[start : start + size]


def chunk_file(folder: Path, chunk: int) -> Path:
    """Return the file of a chunk."""
    return folder / f"{chunk:05}.parquet"


def read_table(path: Path) -> pd.DataFrame | None:
    """Return the table of a chunk, or None when it does not exist."""
    return pd.read_parquet(path) if path.is_file() else None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, atomically. Raises InputError when it cannot be written."""
    check_target(path)
    write_output(path, lambda temporary: table.to_parquet(temporary, index=False))
