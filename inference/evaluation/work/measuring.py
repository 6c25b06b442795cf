"""Draws and scores what the refiners made, on one generator: a table a chunk, a row an image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from prip.errors import PripError
from prip.protocols import Generator, Images, Reward

from ..analysis.diversity import mean_pairwise_distance
from ..analysis.results import SCORE
from ..embedders import Embedder
from ..kinds.generators import identity
from ..kinds.seeds import image_seeds
from .attempts import one_by_one
from .chunks import Numbered
from .images import ImageStore, address
from .stopwatch import Stopwatch

VECTOR = "vector"
"""Column of the embeddings that are kept, of the first image of the first VECTORS prompts; only rows that were embedded
have it."""
VECTORS = 512


@dataclass(frozen=True)
class _Job:
    """An image and the user prompt that it is scored for."""

    user_prompt: str
    refined_prompt: str
    seed: int
    error: str = ""
    """Why there is no refined prompt"""


@dataclass
class _Found:
    """What is known of a job's image."""

    address: str
    """Empty where it could not be drawn"""
    error: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None


class Measurer:
    """A generator and scorers, with a store of images."""

    def __init__(
        self,
        name: str,
        generator: Generator,
        scorers: Mapping[str, Reward],
        store: ImageStore,
        embedder: Embedder | None = None,
        batch_size: int = 256,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """name: of the generator, in the tables. batch_size: images that are drawn, held and scored at a time."""
        self.name = name
        self.generator = generator
        self.scorers = dict(scorers)
        self.store = store
        self.embedder = embedder
        self.batch_size = batch_size
        self.stopwatch = stopwatch or Stopwatch()
        self.drawn = 0
        self.proven: set[str] = set()
        """The generator's name and the columns of scorers and embedder that have gone well at least once: these may
        fail for all of a chunk."""
        self.reason = ""
        """Why the first image failed that could not be drawn"""
        self._identity = identity(generator)

    def measure(
        self,
        prompts: Numbered,
        refined: Mapping[str, pd.DataFrame],
        images_per_prompt: int,
        seed: int,
        scorers: Sequence[str] | None = None,
        embed: bool = True,
    ) -> pd.DataFrame:
        """Returns the rows of results.parquet for a chunk, and with an embedder the column `vector`, a list or None.

        refined: prompt_id, image_index, refined_prompt, error, by refiner. scorers: these alone; None takes all. embed:
        whether the embedder, if there is one, is asked. Raises PripError where drawing, a scorer or the embedder has
        never gone well and fails for the first images.
        """
        scorers = list(self.scorers) if scorers is None else scorers
        embed = embed and self.embedder is not None
        texts = dict(prompts)
        seeds = {number: image_seeds(prompt.text, images_per_prompt, seed) for number, prompt in prompts}
        keys, jobs = [], []
        for refiner, table in refined.items():
            for number, place, text, error in table.itertuples(index=False):
                keys.append((refiner, number, place))
                jobs.append(
                    _Job(texts[number].text, text, seeds[number][place], f"{refiner}: {error}" if error else "")
                )
        found = {job: _Found("", job.error) for job in jobs if job.error}
        distinct = [job for job in dict.fromkeys(jobs) if not job.error]
        for start in range(0, len(distinct), self.batch_size):
            self._measure_batch(distinct[start : start + self.batch_size], found, scorers, embed)
        distances = self._distances(keys, [found[job] for job in jobs])
        rows = []
        for (refiner, number, place), job in zip(keys, jobs, strict=True):
            prompt, one = texts[number], found[job]
            keep = place == 0 and number < VECTORS and one.vector is not None
            rows.append(
                {
                    "prompt_id": number,
                    "user_prompt": prompt.text,
                    "category": prompt.category,
                    "unit": prompt.unit,
                    "cluster": prompt.cluster,
                    "refiner": refiner,
                    "generator": self.name,
                    "image_index": place,
                    "seed": job.seed,
                    "refined_prompt": job.refined_prompt,
                    "tokens": self.generator.count_tokens(job.refined_prompt),
                    "token_limit": self.generator.token_limit,
                    "image": one.address,
                    "error": one.error,
                    "within_distance": distances[refiner, number],
                    **{SCORE + name: one.scores.get(name, math.nan) for name in scorers},
                    **({VECTOR: one.vector.tolist() if keep and one.vector is not None else None} if embed else {}),
                }
            )
        return pd.DataFrame(rows)

    def check(self) -> None:
        """Raises PripError where no image could be drawn."""
        if self.name not in self.proven:
            raise PripError(f"generator {self.name!r}: all images failed: {self.reason}")

    def _measure_batch(
        self, jobs: Sequence[_Job], found: dict[_Job, _Found], scorers: Sequence[str], embed: bool
    ) -> None:
        """Draws what is missing, then scores; adds to `found`. What fails for a batch is tried image by image."""
        own = [_Found(address(self._identity, job.refined_prompt, job.seed)) for job in jobs]
        found.update(zip(jobs, own, strict=True))
        images: dict[str, Images] = {}
        for one in own:
            image = None if one.address in images else self.store.read(one.address)
            if image is not None:
                images[one.address] = image
        missing = {one.address: job for job, one in zip(jobs, own, strict=True) if one.address not in images}
        with self.stopwatch.on("draw"):
            drawn, errors = one_by_one(
                f"generator {self.name!r}",
                lambda some: list(self.generator([job.refined_prompt for job in some], [job.seed for job in some])),
                list(missing.values()),
                self.name in self.proven,
            )
        for place, image in zip(missing, drawn, strict=True):
            if image is not None:
                images[place] = image
                self.store.write(place, image)
                self.drawn += 1
        problems = dict(zip(missing, errors, strict=True))
        for one in own:
            if one.address not in images:
                one.address, one.error = "", problems[one.address]
                self.reason = self.reason or one.error
        shown = [(job, one) for job, one in zip(jobs, own, strict=True) if one.address]
        if shown:
            self.proven.add(self.name)
        for name in scorers:
            scorer = self.scorers[name]
            with self.stopwatch.on("score"):
                scores, reasons = one_by_one(
                    f"scorer {name!r}",
                    lambda some, scorer=scorer: scorer(  # type: ignore[misc]
                        [job.user_prompt for job, _ in some], _stack([images[one.address] for _, one in some])
                    ).tolist(),
                    shown,
                    SCORE + name in self.proven,
                )
            for (_, one), score, reason in zip(shown, scores, reasons, strict=True):
                if score is not None and math.isfinite(score):
                    one.scores[name] = score
                    self.proven.add(SCORE + name)
                else:
                    one.error = f"{name}: {reason or 'the score is not finite'}"
        if self.embedder is not None and embed:
            embedder = self.embedder
            with self.stopwatch.on("embed"):
                vectors, reasons = one_by_one(
                    "embedder",
                    lambda some: list(embedder(_stack([images[one.address] for _, one in some]))),
                    shown,
                    VECTOR in self.proven,
                )
            for (_, one), vector, reason in zip(shown, vectors, reasons, strict=True):
                if vector is not None and np.isfinite(vector).all() and vector.any():
                    one.vector = vector
                    self.proven.add(VECTOR)
                else:
                    one.error = f"embedder: {reason or 'the vector is 0 or not finite'}"

    def _distances(self, keys: Sequence[tuple[str, int, int]], found: Sequence[_Found]) -> dict[tuple[str, int], float]:
        """Mean pairwise distance among a prompt's images, by refiner and prompt; NaN for fewer than two."""
        vectors: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
        for (refiner, number, _), one in zip(keys, found, strict=True):
            own = vectors.setdefault((refiner, number), [])
            if one.vector is not None:
                own.append(one.vector)
        return {
            key: mean_pairwise_distance(np.stack(own)) if len(own) > 1 else math.nan for key, own in vectors.items()
        }


def _stack(images: Sequence[Images]) -> Images:
    return torch.stack(list(images))
