"""An evaluation from settings to a table of images: refine, draw and score, in chunks that a killed run finds again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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

from ..files import check_target, folder_hash, write_atomically, write_with
from .chunks import chunk_file, chunks, write_table
from .images import ImageStore
from .kinds import (
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
from .measuring import VECTOR, Measurer
from .refining import refine_all, refine_chunk
from .settings import ROLES, Entry, EvaluationSettings, without
from .stopwatch import Stopwatch

RESULTS, SETTINGS, IMAGES = "results.parquet", "settings.json", "images"
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

        What an earlier run with the same settings has done is not done again, but for chunks with images that failed.
        overwrite: begin anew; images stay. Raises InputError for a folder that other settings have filled.
        """
        began = time.monotonic()
        prompts = self._prompts()
        self._begin(prompts, overwrite)
        with self.stopwatch.on("all"):
            for name, entry in self.settings.refiners.items():
                if entry["kind"] not in PER_GENERATOR:
                    self._refine(name, prompts)
            drawn = sum(self._measure(name, prompts) for name in self.settings.generators)
            collect(self._parts(prompts), self.folder / RESULTS)
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
        for generator in self.settings.generators:
            for path in sorted((self.folder / "parts" / generator).glob("*.parquet")):
                table = pd.read_parquet(path, columns=["refiner", VECTOR]).dropna(subset=[VECTOR])
                for refiner, vector in table.itertuples(index=False):
                    found.setdefault((generator, refiner), []).append(vector)
        return {key: np.array(own, dtype=np.float32) for key, own in found.items()}

    def agreement(self) -> dict[str, Any] | None:
        """Returns how far the miniature's judge agrees with the exact truth, where the settings ask for it."""
        count, seed = self.settings.agreement_renders, self.context.seed
        if not count:
            return None
        from .agreement import agreement_on_renders
        from .miniature_kinds import judges

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

    def _begin(self, prompts: Sequence[EvaluationPrompt], overwrite: bool) -> None:
        """Makes the folder ready, and clears away what a finished run has to do again."""
        found = {name: path for name, path in asdict(self.context.parts).items() if path is not None}
        parts = {name: folder_hash(path) for name, path in found.items() if path.is_dir()}
        wanted = {
            "settings": asdict(self.settings),
            "seed": self.context.seed,
            "checkpoint": parts,
            "prompts": [[prompt.text, prompt.category, prompt.unit, prompt.cluster] for prompt in prompts],
        }
        text = json.dumps(wanted, indent=1, ensure_ascii=False, default=list) + "\n"
        path = self.folder / SETTINGS
        if overwrite:
            for own in ("refined", "parts"):
                shutil.rmtree(self.folder / own, ignore_errors=True)
        elif self._has_begun() and path.read_text(encoding="utf-8") != text:
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = ", ".join(_differences(before, json.loads(text)))
            raise InputError(
                f"out: {self.folder} holds an evaluation with other {changed}: choose another folder, or --overwrite"
            )
        check_target(path)
        write_atomically(path, text.encode())
        for work in ("refined", "parts"):
            for part in self.folder.glob(f"{work}/*/*.parquet"):
                if (pd.read_parquet(part, columns=["error"])["error"] != "").any():
                    part.unlink()

    def _has_begun(self) -> bool:
        """Whether an earlier run has left work in the folder, and the settings that it was done with."""
        work = any(self.folder.glob("refined/*/*.parquet")) or any(self.folder.glob("parts/*/*.parquet"))
        return work and (self.folder / SETTINGS).is_file()

    def _parts(self, prompts: Sequence[EvaluationPrompt]) -> list[Path]:
        """Returns the files of all chunks of all generators."""
        numbers = [number for number, _ in chunks(prompts, self.settings.chunk)]
        return [
            chunk_file(self.folder / "parts" / name, number) for name in self.settings.generators for number in numbers
        ]

    def _make(self, what: str, name: str, entry: Entry, kinds: Mapping[str, str]) -> Any:
        with self.stopwatch.on("load"):
            return make(what, name, entry, kinds, self.context)

    def _refine(self, name: str, prompts: Sequence[EvaluationPrompt]) -> None:
        settings = self.settings
        refine_all(
            name,
            partial(self._make, "refiner", name, settings.refiners[name], REFINERS),
            prompts,
            self.folder / "refined" / name,
            settings.chunk,
            settings.images_per_prompt,
            self.context.seed,
            self.progress,
            self.stopwatch,
        )

    def _measure(self, name: str, prompts: Sequence[EvaluationPrompt]) -> int:
        """Writes the missing chunks of a generator, loading it and the scorers if there are any; returns how many
        images it drew for them."""
        settings, seed, count = self.settings, self.context.seed, self.settings.images_per_prompt
        folder = self.folder / "parts" / name
        missing = [
            (number, some)
            for number, some in chunks(prompts, settings.chunk)
            if not chunk_file(folder, number).is_file()
        ]
        if not missing:
            return 0
        generator = self._make("generator", name, without(settings.generators[name], "seen"), GENERATORS)
        scorers = {
            scorer: self._make("scorer", scorer, without(entry, "role"), SCORERS)
            for scorer, entry in settings.scorers.items()
        }
        embedder = None
        if settings.embedder is not None:
            embedder = self._make("embedder", "embedder", settings.embedder, EMBEDDERS)
        store = ImageStore(self.images)
        measurer = Measurer(name, generator, scorers, store, embedder, settings.batch_size, self.stopwatch)
        searching: dict[str, PerGenerator] = {
            refiner: self._make("refiner", refiner, entry, REFINERS)
            for refiner, entry in settings.refiners.items()
            if entry["kind"] in PER_GENERATOR
        }
        with tqdm(
            total=sum(len(some) for _, some in missing), desc=name, unit=" prompts", disable=not self.progress
        ) as bar:
            for number, some in missing:
                refined = {}
                for refiner in settings.refiners:
                    if refiner not in searching:
                        refined[refiner] = pd.read_parquet(chunk_file(self.folder / "refined" / refiner, number))
                        continue
                    path = chunk_file(self.folder / "refined" / f"{refiner}@{name}", number)
                    if not path.is_file():
                        with self.stopwatch.on("search"):
                            bound = searching[refiner].on(generator, scorers, settings.batch_size)
                            write_table(path, refine_chunk(bound, some, count, seed))
                    refined[refiner] = pd.read_parquet(path)
                write_table(chunk_file(folder, number), measurer.measure(some, refined, count, seed))
                bar.update(len(some))
        return measurer.drawn


def collect(parts: Sequence[Path], results: Path) -> None:
    """Writes the chunks' rows as one table, without the embeddings: one chunk is in memory at a time."""

    def write(path: Path) -> None:
        schema = pq.read_schema(parts[0])
        schema = pa.schema([one for one in schema if one.name != VECTOR])
        with pq.ParquetWriter(path, schema) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, columns=schema.names).cast(schema))

    write_with(results, write)


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Returns the names of what differs, of settings those of their fields."""
    names = [name for name in after if name != "settings" and before.get(name) != after[name]]
    own = before.get("settings", {})
    return [*(name for name, value in after["settings"].items() if own.get(name) != value), *names]
