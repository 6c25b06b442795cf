"""Reads results.parquet by column and in batches into scores by prompt, never holding all rows at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prip.errors import InputError, require

from .statistics import Floats

SCORE = "score:"
"""Prefix of the names of scorers' columns."""
_PROMPT_COLUMNS = ("user_prompt", "category", "unit", "cluster")
_WORDS = (*_PROMPT_COLUMNS, "refiner", "generator")
_FIGURES = ("tokens", "token_limit", "within_distance")
_BATCH = 1 << 16


@dataclass(frozen=True)
class Prompts:
    """The user prompts of an evaluation in the order of their ids, with the groups that they belong to."""

    ids: NDArray[np.int64]
    texts: list[str]
    categories: list[str]
    units: list[str]
    clusters: list[str]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Measured:
    """Results of one refiner on one generator; arrays are `(prompts,)`, NaN where all images of a prompt failed."""

    scores: dict[str, Floats]
    """Mean over the scored images of each prompt, by scorer."""
    within: Floats
    """Mean pairwise distance among the images of each prompt."""
    images: int
    failed: int
    mean_tokens: float
    at_limit: float
    """Share of images with a prompt that reaches or exceeds the generator's token limit."""


@dataclass(frozen=True)
class Results:
    """An evaluation's results by prompt."""

    prompts: Prompts
    cells: dict[tuple[str, str], Measured]
    """By (generator, refiner)."""

    @property
    def images(self) -> int:
        return sum(cell.images for cell in self.cells.values())

    @property
    def failed(self) -> int:
        return sum(cell.failed for cell in self.cells.values())


def read_results(path: Path) -> Results:
    """Read the results by prompt. Raises InputError for another file or one without rows."""
    file = _open(path)
    scorers = [name.removeprefix(SCORE) for name in file.schema_arrow.names if name.startswith(SCORE)]
    id_batches = [batch.column(0).to_numpy() for batch in file.iter_batches(_BATCH, columns=["prompt_id"])]
    ids = np.unique(np.concatenate(id_batches)) if id_batches else np.empty(0, np.int64)
    if not len(ids):
        raise InputError(f"{path}: expected results, got no rows")
    words: list[list[str]] = [[""] * len(ids) for _ in _PROMPT_COLUMNS]
    known = np.zeros(len(ids), dtype=bool)
    sums: dict[tuple[str, str], _Sums] = {}
    columns = ["prompt_id", *_WORDS, *_FIGURES, "error", *(SCORE + name for name in scorers)]
    for batch in file.iter_batches(_BATCH, columns=columns):
        indices = np.searchsorted(ids, batch["prompt_id"].to_numpy())
        new, first = np.unique(indices, return_index=True)
        new, first = new[~known[new]], first[~known[new]]
        known[new] = True
        for column, texts in zip(_PROMPT_COLUMNS, words, strict=True):
            for index, text in zip(new.tolist(), batch[column].take(first).to_pylist(), strict=True):
                texts[index] = text
        figures = {name: np.asarray(batch[name], dtype=np.float64) for name in columns if name.startswith(SCORE)}
        figures |= {name: np.asarray(batch[name], dtype=np.float64) for name in _FIGURES}
        failed = np.asarray(batch["error"].to_numpy(zero_copy_only=False) != "", dtype=bool)
        for cell, rows in _rows_by_cell(batch):
            cell_sums = sums.setdefault(cell, _Sums(len(ids), scorers))
            cell_sums.add(indices[rows], {name: values[rows] for name, values in figures.items()}, failed[rows])
    return Results(Prompts(ids, *words), {cell: cell_sums.measured() for cell, cell_sums in sums.items()})


def _open(path: Path) -> Any:
    parquet = require("pyarrow.parquet", "evaluate")
    try:
        columns = parquet.read_schema(path).names
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an evaluation's results: {error}") from error
    missing = [name for name in ("prompt_id", *_WORDS, *_FIGURES, "error") if name not in columns]
    if missing:
        raise InputError(f"{path}: expected an evaluation's results, got a table without {', '.join(missing)}")
    return parquet.ParquetFile(path, read_dictionary=list(_WORDS))


def _rows_by_cell(batch: Any) -> Iterator[tuple[tuple[str, str], NDArray[np.intp]]]:
    """Yield each (generator, refiner) of a batch with the indices of its rows."""
    generators, refiners = batch["generator"], batch["refiner"]
    codes = generators.indices.to_numpy() * len(refiners.dictionary) + refiners.indices.to_numpy()
    for code in np.unique(codes).tolist():
        generator, refiner = divmod(code, len(refiners.dictionary))
        yield (
            (generators.dictionary[generator].as_py(), refiners.dictionary[refiner].as_py()),
            np.nonzero(codes == code)[0],
        )


class _Sums:
    """Running sums of a cell's figures by prompt."""

    def __init__(self, prompts: int, scorers: Sequence[str]) -> None:
        self.prompts = prompts
        self.names = [*(SCORE + name for name in scorers), "within_distance"]
        self.totals = {name: np.zeros(prompts) for name in self.names}
        self.counts = {name: np.zeros(prompts) for name in self.names}
        self.images = self.failed = self.tokens = self.at_limit = 0

    def add(self, indices: NDArray[np.intp], figures: dict[str, Floats], failed: NDArray[np.bool_]) -> None:
        for name in self.names:
            valid = ~np.isnan(figures[name])
            self.totals[name] += np.bincount(indices[valid], weights=figures[name][valid], minlength=self.prompts)
            self.counts[name] += np.bincount(indices[valid], minlength=self.prompts)
        self.images += len(indices)
        self.failed += int(failed.sum())
        self.tokens += int(figures["tokens"].sum())
        self.at_limit += int((figures["tokens"] >= figures["token_limit"]).sum())

    def measured(self) -> Measured:
        means = {
            name: np.divide(
                self.totals[name], self.counts[name], out=np.full(self.prompts, np.nan), where=self.counts[name] > 0
            )
            for name in self.names
        }
        within = means.pop("within_distance")
        scores = {name.removeprefix(SCORE): values for name, values in means.items()}
        return Measured(
            scores, within, self.images, self.failed, self.tokens / self.images, self.at_limit / self.images
        )


def rows_of(path: Path, prompt_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return all rows of a few prompts as dicts, in the file's order."""
    dataset = require("pyarrow.dataset", "evaluate")
    chosen = dataset.field("prompt_id").isin(list(prompt_ids))
    return dataset.dataset(path).to_table(filter=chosen, use_threads=False).to_pylist()


def failed_rows(path: Path, limit: int) -> list[dict[str, Any]]:
    """Return the first `limit` rows with a failed image."""
    dataset = require("pyarrow.dataset", "evaluate")
    scanner = dataset.dataset(path).scanner(
        columns=["user_prompt", "refiner", "generator", "refined_prompt", "image_index", "seed", "error"],
        filter=dataset.field("error") != "",
        use_threads=False,
    )
    return scanner.head(limit).to_pylist()
