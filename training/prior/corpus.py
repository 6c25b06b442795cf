"""Real prompts, split by series and parsed into what they show and what their writers added."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prip.errors import InputError
from prip.prior.concepts import SplitPrompt, concept_columns, distinct_prompts
from prip.prior.series import position_of, series_of
from prip.text_files import read_lines

Floats = NDArray[np.float32]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class Corpus:
    """Distinct prompts; all arrays have one row or entry for each."""

    prompts: list[SplitPrompt]
    series: list[str]
    position: NDArray[np.float64]
    """Where the prompt's series falls in [0, 1); splits are ranges of it."""

    @property
    def weights(self) -> Floats:
        """One over the size of each prompt's series, so that every series counts the same."""
        sizes = Counter(self.series)
        return np.array([1 / sizes[series] for series in self.series], np.float32)

    @property
    def added(self) -> Booleans:
        """`(prompts, concepts)`: the concepts that each writer added."""
        return _indicators([prompt.added for prompt in self.prompts])

    @property
    def named(self) -> Booleans:
        """`(prompts, concepts)`: the concepts that each head names, which nobody would add."""
        return _indicators([tuple(prompt.named) for prompt in self.prompts])

    def between(self, start: float, end: float) -> Booleans:
        """Return which prompts are of series from `start` up to `end`."""
        return (self.position >= start) & (self.position < end)


def read_corpus(files: Sequence[Path], seed: int) -> Corpus:
    """Read files of prompts, one per line in UTF-8; a prompt that occurs again in any letter case is dropped.

    Args:
        files: Text files, best of several communities of users: they differ more than subjects do.
        seed: Of the split by series.

    Raises:
        InputError: A file cannot be read, or no prompt is left.
    """
    distinct = distinct_prompts(line for path in files for line in read_lines(path, f"prompts: {path}"))
    if not distinct:
        raise InputError("prompts: expected files with at least one prompt, got none")
    series = series_of(list(distinct))
    positions = np.array([position_of(name, seed) for name in series])
    return Corpus(list(distinct.values()), series, positions)


def _indicators(rows: Sequence[tuple[str, ...]]) -> Booleans:
    columns = concept_columns()
    table = np.zeros((len(rows), len(columns)), bool)
    for row, concepts in enumerate(rows):
        table[row, [columns[concept] for concept in concepts]] = True
    return table
