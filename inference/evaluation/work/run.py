"""Runs an evaluation from its settings to a table of images: refine, draw and score, in chunks that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prip.errors import InputError
from prip.files import write_output
from prip.protocols import PromptRefiner

from ..analysis.additions import additions_of, precision_differences
from ..analysis.results import SCORE
from ..kinds.registry import (
    EMBEDDERS,
    GENERATORS,
    PER_GENERATOR,
    PROMPT_SETS,
    REFINERS,
    SCORERS,
    Context,
    Entry,
    EvaluationPrompt,
    Kinds,
    PerGenerator,
)
from ..settings import ROLES, EvaluationSettings, without
from .chunks import Numbered, chunk_file, chunks, read_table, write_table
from .gaps import Gap, Tables, filled, gap_of
from .images import ImageStore
from .measuring import VECTOR, Measurer
from .record import PARTS, REFINED, begin
from .refining import Refinements, refine_all
from .stopwatch import Stopwatch

RESULTS, IMAGES = "results.parquet", "images"
Vectors = dict[tuple[str, str], NDArray[np.float32]]
"""Embeddings `(prompts, width)` of one image per prompt, by (generator, refiner)."""
T = TypeVar("T")


@dataclass(frozen=True)
class Evaluation:
    """An evaluation and its folder."""

    settings: EvaluationSettings
    context: Context
    folder: Path
    images: Path
    """Folder of the images, which several evaluations may share."""
    progress: bool = False
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def run(self, overwrite: bool = False) -> dict[str, Any]:
        """Write FOLDER/results.parquet, and return further facts about the run.

        The work of an earlier run is kept, except what failed; refiners, generators and scorers that it lacked are
        added.

        Args:
            overwrite: Delete what was made with other settings, except images.

        Raises:
            InputError: The folder holds work made with other settings.
        """
        began = time.monotonic()
        prompts = self._prompts()
        begin(self.folder, self.settings, self.context, prompts, overwrite)
        with self.stopwatch.on("all"):
            for name, entry in self.settings.refiners.items():
                if entry["kind"] not in PER_GENERATOR:
                    self._refine(name, prompts)
            drawn = sum(self._measure(name, prompts) for name in self.settings.generators)
            if self.settings.generators:
                collect(self._parts(prompts), self.folder / RESULTS, self.settings)
        return {
            "prompts": len(prompts),
            "clusters": len({prompt.cluster for prompt in prompts}),
            "images_per_prompt": self.settings.images_per_prompt,
            "seed": self.context.seed,
            "drawn": drawn,
            "refiners": {name: dict(entry) for name, entry in self.settings.refiners.items()},
            "generators": {name: {"seen": True, **entry} for name, entry in self.settings.generators.items()},
            "scorers": {name: {"role": ROLES[1], **entry} for name, entry in self.settings.scorers.items()},
            "seconds": round(time.monotonic() - began, 1),
            "seconds_by_work": {work: round(seconds, 2) for work, seconds in self.stopwatch.seconds.items()},
        }

    def additions(self) -> dict[str, Any]:
        """Return what each refiner added, and the settings' comparisons, for a finished run.

        The text of a prompt that failed is empty.
        """
        prompts, options = self._prompts(), {"draws": self.settings.bootstrap_draws, "seed": self.context.seed}
        refined = {name: self._first_texts(name, prompts) for name in self.settings.refiners}
        pairs = [list(pair) for pair in self.settings.comparisons]
        return {
            "additions": {name: additions_of(prompts, texts, **options) for name, texts in refined.items()},
            "differences": [[pair, precision_differences(prompts, refined, pair, **options)] for pair in pairs],
        }

    def _first_texts(self, name: str, prompts: Sequence[EvaluationPrompt]) -> list[str]:
        """Return one refined prompt for each user prompt, empty where refining failed."""
        texts = [""] * len(prompts)
        for number, _ in chunks(prompts, self.settings.chunk):
            table = self._refinements(name).table(number)
            if table is not None:
                rows = table[(table["image_index"] == 0) & (table["error"] == "")]
                for index, text in zip(rows["prompt_id"], rows["refined_prompt"], strict=True):
                    texts[index] = text
        return texts

    def vectors(self) -> Vectors:
        """Return the embeddings that a finished run has kept."""
        vectors: dict[tuple[str, str], list[Any]] = {}
        if self.settings.embedder is None:
            return {}
        for generator in self.settings.generators:
            for path in sorted((self.folder / PARTS / generator).glob("*.parquet")):
                table = pd.read_parquet(path, columns=["refiner", VECTOR]).dropna(subset=[VECTOR])
                for refiner, vector in table[table["refiner"].isin(list(self.settings.refiners))].itertuples(
                    index=False
                ):
                    vectors.setdefault((generator, refiner), []).append(vector)
        return {key: np.array(rows, dtype=np.float32) for key, rows in vectors.items()}

    def agreement(self) -> dict[str, Any] | None:
        """Return how well the miniature's judge agrees with the exact truth, if the settings ask for it."""
        count, seed = self.settings.agreement_renders, self.context.seed
        if not count:
            return None
        from ..kinds.miniature import agreement_on_renders, judges

        truth = judges(self.context).truth
        user_prompts = [prompt.text for prompt in self._prompts()]
        return agreement_on_renders(truth, user_prompts, count, truth.reader.image_size, seed)

    def _prompts(self) -> list[EvaluationPrompt]:
        settings = self.settings
        every = PROMPT_SETS.make("prompts", settings.prompts, self.context)
        prompts = list({prompt.text: prompt for prompt in every}.values())
        if not prompts:
            raise InputError("prompts: expected at least one, got an empty set")
        if 0 < settings.prompt_limit < len(prompts):
            indices = np.linspace(0, len(prompts) - 1, settings.prompt_limit).round().astype(int)
            prompts = [prompts[index] for index in indices]
        return prompts

    def _parts(self, prompts: Sequence[EvaluationPrompt]) -> list[Path]:
        numbers = [number for number, _ in chunks(prompts, self.settings.chunk)]
        return [
            chunk_file(self.folder / PARTS / name, number) for name in self.settings.generators for number in numbers
        ]

    def _make(self, kinds: Kinds[T], name: str, entry: Entry) -> T:
        label = name if name == kinds.section else f"{kinds.section} {name}"
        with self.stopwatch.on("load", f"loading {label}"):
            return kinds.make(name, entry, self.context)

    def _refinements(self, folder: str) -> Refinements:
        return Refinements(folder, self.folder / REFINED / folder, self.settings.images_per_prompt, self.context.seed)

    def _refine(self, name: str, prompts: Sequence[EvaluationPrompt]) -> None:
        entry = self.settings.refiners[name]
        refine_all(
            self._refinements(name),
            lambda: cast(PromptRefiner, self._make(REFINERS, name, entry)),
            prompts,
            chunk=self.settings.chunk,
            progress=self.progress,
            stopwatch=self.stopwatch,
        )

    def _measure(self, name: str, prompts: Sequence[EvaluationPrompt]) -> int:
        """Measure what the chunks of a generator lack, and return the number of images drawn.

        The generator and the scorers are loaded only when something is missing.
        """
        settings = self.settings
        searching = [refiner for refiner, entry in settings.refiners.items() if entry["kind"] in PER_GENERATOR]
        texts = {
            refiner: self._refinements(f"{refiner}@{name}" if refiner in searching else refiner)
            for refiner in settings.refiners
        }
        missing, scorers, proven = self._missing(name, prompts, texts)
        if not missing:
            return 0
        total = sum(len(batch) for _, batch in missing)
        with self.stopwatch.bar(name, total, self.progress) as advance:
            measurer = self._measurer(name, scorers)
            measurer.proven |= proven
            unbound = {
                refiner: cast(PerGenerator, self._make(REFINERS, refiner, settings.refiners[refiner]))
                for refiner in searching
            }
            for number, batch in missing:
                for refiner, per_generator in unbound.items():
                    if texts[refiner].lacks(number):
                        with self.stopwatch.on("search", f"searching, {refiner}, {len(batch)} prompts"):
                            bound = per_generator.on(measurer.generator, measurer.scorers, settings.batch_size)
                            texts[refiner].refine(bound, number, batch)
                self._fill(measurer, number, batch, _tables(texts, number))
                advance(len(batch))
        for refiner in searching:
            texts[refiner].check()
        measurer.check()
        return measurer.drawn

    def _missing(
        self, name: str, prompts: Sequence[EvaluationPrompt], texts: Mapping[str, Refinements]
    ) -> tuple[list[tuple[int, Numbered]], set[str], set[str]]:
        """Return the incomplete chunks, the scorers that they need, and what has worked in saved chunks."""
        missing, scorers, proven = [], set[str](), set[str]()
        for number, batch in chunks(prompts, self.settings.chunk):
            rows = read_table(chunk_file(self.folder / PARTS / name, number))
            needed = self._needed_scorers(rows, number, texts)
            if needed is not None:
                missing.append((number, batch))
                scorers |= needed
            if rows is not None and (rows["image"] != "").any():
                proven.add(name)
                proven |= {column for column in rows if column.startswith(SCORE) and rows[column].notna().any()}
        return missing, scorers, proven

    def _fill(self, measurer: Measurer, number: int, batch: Numbered, refined: Tables) -> None:
        """Measure what a chunk lacks, and save it."""
        path = chunk_file(self.folder / PARTS / measurer.name, number)
        rows = read_table(path)
        table = filled(
            rows,
            self._gap(rows, refined),
            measurer,
            batch,
            refined,
            images_per_prompt=self.settings.images_per_prompt,
            seed=self.context.seed,
        )
        write_table(path, table)

    def _gap(self, rows: pd.DataFrame | None, refined: Tables) -> Gap:
        return gap_of(rows, refined, list(self.settings.scorers), self.settings.embedder is not None)

    def _needed_scorers(
        self, rows: pd.DataFrame | None, number: int, texts: Mapping[str, Refinements]
    ) -> set[str] | None:
        """Return the scorers that a chunk's gap needs, or None when the chunk is complete."""
        refiners = self.settings.refiners
        if any(own.lacks(number) for name, own in texts.items() if refiners[name]["kind"] in PER_GENERATOR):
            return set(self.settings.scorers)
        gap = self._gap(rows, _tables(texts, number))
        if not gap:
            return None
        any_prompts = any(len(table) for table in gap.lacking.values())
        return set(self.settings.scorers if any_prompts else gap.scorers)

    def _measurer(self, name: str, scorers: Collection[str]) -> Measurer:
        settings = self.settings
        generator = self._make(GENERATORS, name, without(settings.generators[name], "seen"))
        loaded = {
            scorer: self._make(SCORERS, scorer, without(entry, "role"))
            for scorer, entry in settings.scorers.items()
            if scorer in scorers
        }
        embedder = None if settings.embedder is None else self._make(EMBEDDERS, "embedder", settings.embedder)
        return Measurer(
            name,
            generator,
            loaded,
            ImageStore(self.images),
            embedder=embedder,
            batch_size=settings.batch_size,
            stopwatch=self.stopwatch,
        )


def _tables(texts: Mapping[str, Refinements], number: int) -> dict[str, pd.DataFrame]:
    tables = {refiner: refinements.table(number) for refiner, refinements in texts.items()}
    return {refiner: table for refiner, table in tables.items() if table is not None}


def collect(parts: Sequence[Path], results: Path, settings: EvaluationSettings) -> None:
    """Write the chunks' rows of the settings' refiners and scorers as one table, one chunk in memory at a time.

    Embeddings are dropped, and so are the distances when the settings have no embedder.
    """
    refiners = list(settings.refiners)

    def write(path: Path) -> None:
        saved = pq.read_schema(parts[0])
        names = [name for name in saved.names if not name.startswith(SCORE) and name != VECTOR]
        names += [SCORE + scorer for scorer in settings.scorers]
        schema = pa.schema([saved.field(name) for name in names])
        with pq.ParquetWriter(path, schema) as writer:
            for part in parts:
                table = pq.read_table(part, columns=schema.names, filters=[("refiner", "in", refiners)])
                if settings.embedder is None:
                    blank = pa.array(np.full(len(table), np.nan))
                    table = table.set_column(schema.names.index("within_distance"), "within_distance", blank)
                writer.write_table(table.cast(schema))

    write_output(results, write)
