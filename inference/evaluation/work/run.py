"""An evaluation from settings to a table of images: refine, draw and score, in chunks that a killed run finds again."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from prip.errors import InputError
from prip.files import write_output

from ..analysis.results import SCORE
from ..kinds.registry import (
    EMBEDDERS,
    GENERATORS,
    PER_GENERATOR,
    PROMPT_SETS,
    REFINERS,
    SCORERS,
    Context,
    EvaluationPrompt,
    PerGenerator,
    make,
)
from ..settings import ROLES, Entry, EvaluationSettings, without
from .chunks import chunk_file, chunks, read_table, write_table
from .gaps import Gap, Tables, filled, gap_of
from .images import ImageStore
from .measuring import VECTOR, Measurer
from .record import PARTS, REFINED, begin
from .refining import Refinements, refine_all
from .stopwatch import Stopwatch

RESULTS, IMAGES = "results.parquet", "images"
Vectors = dict[tuple[str, str], NDArray[np.float32]]
"""(generator, refiner) -> embeddings of one image of each prompt, (prompts, width)."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation, and the folder that it fills."""

    settings: EvaluationSettings
    context: Context
    folder: Path
    images: Path
    """Where images are kept; several evaluations may share them."""
    progress: bool = False
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def run(self, overwrite: bool = False) -> dict[str, Any]:
        """Writes FOLDER/results.parquet, and returns what is known of the run besides.

        What an earlier run has done is not done again, but for what failed; refiners, generators and scorers that it
        lacked are added. overwrite: delete what was made with other settings, but for images. Raises InputError for a
        folder that holds such work.
        """
        began = time.monotonic()
        prompts = self._prompts()
        begin(self.folder, self.settings, self.context, prompts, overwrite)
        with self.stopwatch.on("all"):
            for name, entry in self.settings.refiners.items():
                if entry["kind"] not in PER_GENERATOR:
                    self._refine(name, prompts)
            drawn = sum(self._measure(name, prompts) for name in self.settings.generators)
            collect(
                self._parts(prompts),
                self.folder / RESULTS,
                list(self.settings.refiners),
                list(self.settings.scorers),
                self.settings.embedder is not None,
            )
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
            "seconds_by_work": {what: round(seconds, 2) for what, seconds in self.stopwatch.seconds.items()},
        }

    def vectors(self) -> Vectors:
        """Returns the embeddings that a finished run has kept."""
        found: dict[tuple[str, str], list[Any]] = {}
        if self.settings.embedder is None:
            return {}
        for generator in self.settings.generators:
            for path in sorted((self.folder / PARTS / generator).glob("*.parquet")):
                table = pd.read_parquet(path, columns=["refiner", VECTOR]).dropna(subset=[VECTOR])
                for refiner, vector in table[table["refiner"].isin(list(self.settings.refiners))].itertuples(
                    index=False
                ):
                    found.setdefault((generator, refiner), []).append(vector)
        return {key: np.array(own, dtype=np.float32) for key, own in found.items()}

    def agreement(self) -> dict[str, Any] | None:
        """Returns how far the miniature's judge agrees with the exact truth, where the settings ask for it."""
        count, seed = self.settings.agreement_renders, self.context.seed
        if not count:
            return None
        from ..analysis.agreement import agreement_on_renders
        from ..kinds.miniature import judges

        truth = judges(self.context).truth
        user_prompts = [prompt.text for prompt in self._prompts()]
        return agreement_on_renders(truth, user_prompts, count, truth.reader.image_size, seed)

    def _prompts(self) -> list[EvaluationPrompt]:
        settings = self.settings
        every = make("prompts", "prompts", settings.prompts, PROMPT_SETS, self.context)
        prompts = list({prompt.text: prompt for prompt in every}.values())
        if not prompts:
            raise InputError("prompts: the set is empty")
        if 0 < settings.prompt_limit < len(prompts):
            places = np.linspace(0, len(prompts) - 1, settings.prompt_limit).round().astype(int)
            prompts = [prompts[place] for place in places]
        return prompts

    def _parts(self, prompts: Sequence[EvaluationPrompt]) -> list[Path]:
        """Returns the files of all chunks of all generators."""
        numbers = [number for number, _ in chunks(prompts, self.settings.chunk)]
        return [
            chunk_file(self.folder / PARTS / name, number) for name in self.settings.generators for number in numbers
        ]

    def _make(self, what: str, name: str, entry: Entry, kinds: Mapping[str, str]) -> Any:
        with self.stopwatch.on("load"):
            return make(what, name, entry, kinds, self.context)

    def _refinements(self, folder: str) -> Refinements:
        return Refinements(folder, self.folder / REFINED / folder, self.settings.images_per_prompt, self.context.seed)

    def _refine(self, name: str, prompts: Sequence[EvaluationPrompt]) -> None:
        settings = self.settings
        refine_all(
            self._refinements(name),
            partial(self._make, "refiner", name, settings.refiners[name], REFINERS),
            prompts,
            settings.chunk,
            self.progress,
            self.stopwatch,
        )

    def _measure(self, name: str, prompts: Sequence[EvaluationPrompt]) -> int:
        """Measures what the chunks of a generator lack, loading it and the scorers if that is anything; returns how
        many images it drew for them."""
        settings, seed, count = self.settings, self.context.seed, self.settings.images_per_prompt
        texts = {
            refiner: self._refinements(f"{refiner}@{name}" if entry["kind"] in PER_GENERATOR else refiner)
            for refiner, entry in settings.refiners.items()
        }
        folder, missing = self.folder / PARTS / name, []
        wanted, proven = set(), set()
        for number, some in chunks(prompts, settings.chunk):
            rows = read_table(chunk_file(folder, number))
            needs = self._needs(rows, number, texts)
            if needs is not None:
                missing.append((number, some))
                wanted |= needs
            if rows is not None and (rows["image"] != "").any():
                proven.add(name)
                proven |= {column for column in rows if column.startswith(SCORE) and rows[column].notna().any()}
        if not missing:
            return 0
        measurer = self._measurer(name, wanted)
        measurer.proven |= proven
        searching: dict[str, PerGenerator] = {
            refiner: self._make("refiner", refiner, entry, REFINERS)
            for refiner, entry in settings.refiners.items()
            if entry["kind"] in PER_GENERATOR
        }
        with tqdm(
            total=sum(len(some) for _, some in missing), desc=name, unit=" prompts", disable=not self.progress
        ) as bar:
            for number, some in missing:
                for refiner, own in searching.items():
                    if texts[refiner].lacks(number):
                        with self.stopwatch.on("search"):
                            bound = own.on(measurer.generator, measurer.scorers, settings.batch_size)
                            texts[refiner].make(bound, number, some)
                rows, refined = read_table(chunk_file(folder, number)), _tables(texts, number)
                gap = self._gap(rows, refined)
                table = filled(rows, gap, measurer, some, refined, count, seed)
                write_table(chunk_file(folder, number), table)
                bar.update(len(some))
        for refiner in searching:
            texts[refiner].check()
        measurer.check()
        return measurer.drawn

    def _gap(self, rows: pd.DataFrame | None, refined: Tables) -> Gap:
        return gap_of(rows, refined, list(self.settings.scorers), self.settings.embedder is not None)

    def _needs(self, rows: pd.DataFrame | None, number: int, texts: Mapping[str, Refinements]) -> set[str] | None:
        """Returns the scorers that a chunk's gap wants, None where it has none."""
        searched = [own for name, own in texts.items() if self.settings.refiners[name]["kind"] in PER_GENERATOR]
        if any(own.lacks(number) for own in searched):
            return set(self.settings.scorers)
        gap = self._gap(rows, _tables(texts, number))
        if not gap:
            return None
        whole = any(len(table) for table in gap.lacking.values())
        return set(self.settings.scorers if whole else gap.scorers)

    def _measurer(self, name: str, wanted: Collection[str]) -> Measurer:
        """Returns a measurer with a generator, the scorers that are wanted of it, and the embedder."""
        settings = self.settings
        generator = self._make("generator", name, without(settings.generators[name], "seen"), GENERATORS)
        scorers = {
            scorer: self._make("scorer", scorer, without(entry, "role"), SCORERS)
            for scorer, entry in settings.scorers.items()
            if scorer in wanted
        }
        embedder = None
        if settings.embedder is not None:
            embedder = self._make("embedder", "embedder", settings.embedder, EMBEDDERS)
        store = ImageStore(self.images)
        return Measurer(name, generator, scorers, store, embedder, settings.batch_size, self.stopwatch)


def _tables(texts: Mapping[str, Refinements], number: int) -> dict[str, pd.DataFrame]:
    """Returns what each refiner made of a chunk that all have refined."""
    tables = {refiner: own.table(number) for refiner, own in texts.items()}
    return {refiner: table for refiner, table in tables.items() if table is not None}


def collect(
    parts: Sequence[Path], results: Path, refiners: Sequence[str], scorers: Sequence[str], embedded: bool
) -> None:
    """Writes the chunks' rows of these refiners, with the scores of these scorers, as one table: one chunk is in memory
    at a time. Embeddings are left out, and the distances where not `embedded`."""

    def write(path: Path) -> None:
        found = pq.read_schema(parts[0])
        names = [name for name in found.names if not name.startswith(SCORE) and name != VECTOR]
        schema = pa.schema([found.field(name) for name in (*names, *(SCORE + scorer for scorer in scorers))])
        with pq.ParquetWriter(path, schema) as writer:
            for part in parts:
                table = pq.read_table(part, columns=schema.names, filters=[("refiner", "in", list(refiners))])
                if not embedded:
                    blank = pa.array(np.full(len(table), np.nan))
                    table = table.set_column(schema.names.index("within_distance"), "within_distance", blank)
                writer.write_table(table.cast(schema))

    write_output(results, write)
