"""Draws and scores refined prompts on one generator: one table per chunk, one row per image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from prip.errors import PripError
from prip.generators.safety import blackened
from prip.protocols import Generator, Images, Reward

from ..analysis.diversity import mean_pairwise_distance
from ..analysis.results import SCORE
from ..kinds.generators import identity
from ..kinds.registry import Embedder
from ..kinds.seeds import image_seeds
from .attempts import one_by_one
from .chunks import Numbered
from .images import ImageStore, address
from .stopwatch import Stopwatch

VECTOR = "vector"
"""Column of the embeddings, which are kept for the first image of the first VECTORS prompts; only embedded rows have
it."""
VECTORS = 512
BLACKENED = "the safety checker blackened the image"
"""Error of an image that is kept, but neither scored nor embedded."""


class _Job(NamedTuple):
    """An image to draw, and the user prompt that it is scored for."""

    user_prompt: str
    refined_prompt: str
    seed: int
    error: str = ""
    """Why there is no refined prompt."""


@dataclass
class _Outcome:
    """What was measured of a job's image."""

    address: str
    """Empty when the image could not be drawn."""
    error: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    vector: NDArray[np.float32] | None = None


class _Shown(NamedTuple):
    """A job whose image was drawn."""

    job: _Job
    outcome: _Outcome
    image: Images


class Measurer:
    """Draws with one generator, and scores and embeds the images; drawn images are kept in a store."""

    def __init__(
        self,
        name: str,
        generator: Generator,
        scorers: Mapping[str, Reward],
        store: ImageStore,
        *,
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
        """The generator's name and the columns of scorers and embedder that have worked at least once; these may fail
        for a whole chunk."""
        self.reason = ""
        """Why the first failed image could not be drawn."""
        self._identity = identity(generator)
        self._batch = ""
        """The images that are being measured, in words."""

    def measure(
        self,
        prompts: Numbered,
        refined: Mapping[str, pd.DataFrame],
        images_per_prompt: int,
        seed: int,
        *,
        scorers: Sequence[str] | None = None,
        embed: bool = True,
    ) -> pd.DataFrame:
        """Return the rows of results.parquet for a chunk, with the column `vector` (list or None) when embedded.

        Args:
            refined: prompt_id, image_index, refined_prompt, error, by refiner.
            scorers: Names of the scorers to ask; None asks all.
            embed: Whether to ask the embedder, if there is one.

        Raises:
            PripError: The generator, a scorer or the embedder has never worked and fails for the first images.
        """
        scorers = list(self.scorers) if scorers is None else scorers
        embed = embed and self.embedder is not None
        texts = dict(prompts)
        seeds = {number: image_seeds(prompt.text, images_per_prompt, seed) for number, prompt in prompts}
        keys, jobs = [], []
        for refiner, table in refined.items():
            for number, index, text, error in table.itertuples(index=False):
                keys.append((refiner, number, index))
                reason = f"{refiner}: {error}" if error else ""
                jobs.append(_Job(texts[number].text, text, seeds[number][index], reason))

        # Refiners often agree on a prompt: each distinct job is measured once.
        outcomes = {job: _Outcome("", job.error) for job in jobs if job.error}
        distinct = [job for job in dict.fromkeys(jobs) if not job.error]
        for start in range(0, len(distinct), self.batch_size):
            last = min(start + self.batch_size, len(distinct))
            self._batch = f"images {start + 1:,} to {last:,} of {len(distinct):,}"
            outcomes |= self._measure_batch(distinct[start : start + self.batch_size], scorers, embed)

        distances = _distances(keys, [outcomes[job] for job in jobs])
        rows = []
        for (refiner, number, index), job in zip(keys, jobs, strict=True):
            prompt, outcome = texts[number], outcomes[job]
            row = {
                "prompt_id": number,
                "user_prompt": prompt.text,
                "category": prompt.category,
                "unit": prompt.unit,
                "cluster": prompt.cluster,
                "refiner": refiner,
                "generator": self.name,
                "image_index": index,
                "seed": job.seed,
                "refined_prompt": job.refined_prompt,
                "tokens": self.generator.count_tokens(job.refined_prompt),
                "token_limit": self.generator.token_limit,
                "image": outcome.address,
                "error": outcome.error,
                "within_distance": distances[refiner, number],
                **{SCORE + name: outcome.scores.get(name, math.nan) for name in scorers},
            }
            if embed:
                keep = index == 0 and number < VECTORS and outcome.vector is not None
                row[VECTOR] = outcome.vector.tolist() if keep and outcome.vector is not None else None
            rows.append(row)
        return pd.DataFrame(rows)

    def check(self) -> None:
        """Raise PripError when no image could be drawn."""
        if self.name not in self.proven:
            raise PripError(f"generator {self.name!r}: all images failed: {self.reason}")

    def _measure_batch(self, jobs: Sequence[_Job], scorers: Sequence[str], embed: bool) -> dict[_Job, _Outcome]:
        """Draw what the store lacks, then score and embed."""
        outcomes = {job: _Outcome(address(self._identity, job.refined_prompt, job.seed)) for job in jobs}
        images = self._stored(outcomes.values())
        images |= self._draw({outcome.address: job for job, outcome in outcomes.items()}, images, outcomes)
        shown = [_Shown(job, outcome, images[outcome.address]) for job, outcome in outcomes.items() if outcome.address]
        if shown:
            self.proven.add(self.name)
        shown = self._without_blackened(shown)
        for name in scorers:
            self._score(name, shown)
        if embed and self.embedder is not None:
            self._embed(self.embedder, shown)
        return outcomes

    def _without_blackened(self, shown: list[_Shown]) -> list[_Shown]:
        """Return the images that no safety checker blackened; for the others, note why they have no scores."""
        kept = []
        for one in shown:
            if blackened(self.generator, one.image.unsqueeze(0)).item():
                one.outcome.error = f"generator {self.name!r}: {BLACKENED}"
            else:
                kept.append(one)
        return kept

    def _stored(self, outcomes: Iterable[_Outcome]) -> dict[str, Images]:
        read = {name: self.store.read(name) for name in dict.fromkeys(outcome.address for outcome in outcomes)}
        return {name: image for name, image in read.items() if image is not None}

    def _draw(
        self, jobs: Mapping[str, _Job], stored: Mapping[str, Images], outcomes: Mapping[_Job, _Outcome]
    ) -> dict[str, Images]:
        """Draw and store the images of the addresses that are not `stored`; failures are noted in `outcomes`."""
        missing = {name: job for name, job in jobs.items() if name not in stored}
        with self.stopwatch.on("draw", f"drawing {self._batch}"):
            drawn, reasons = one_by_one(
                f"generator {self.name!r}",
                lambda batch: list(self.generator([job.refined_prompt for job in batch], [job.seed for job in batch])),
                list(missing.values()),
                proven=self.name in self.proven,
            )
        images = {name: image for name, image in zip(missing, drawn, strict=True) if image is not None}
        for name, image in images.items():
            self.store.write(name, image)
        self.drawn += len(images)
        failures = {name: reason for name, reason in zip(missing, reasons, strict=True) if name not in images}
        for outcome in outcomes.values():
            if outcome.address in failures:
                outcome.address, outcome.error = "", failures[outcome.address]
                self.reason = self.reason or outcome.error
        return images

    def _score(self, name: str, shown: list[_Shown]) -> None:
        """Score the images, and note the scores or why there are none."""
        scorer = self.scorers[name]
        with self.stopwatch.on("score", f"{name}, {self._batch}"):
            scores, reasons = one_by_one(
                f"scorer {name!r}",
                lambda batch: scorer([one.job.user_prompt for one in batch], _stack(batch)).tolist(),
                shown,
                proven=SCORE + name in self.proven,
            )
        for (_, outcome, _), score, reason in zip(shown, scores, reasons, strict=True):
            if score is not None and math.isfinite(score):
                outcome.scores[name] = score
                self.proven.add(SCORE + name)
            else:
                outcome.error = f"{name}: {reason or 'the score is not finite'}"

    def _embed(self, embedder: Embedder, shown: list[_Shown]) -> None:
        """Embed the images, and note the vectors or why there are none."""
        with self.stopwatch.on("embed", f"embedding {self._batch}"):
            vectors, reasons = one_by_one(
                "embedder", lambda batch: list(embedder(_stack(batch))), shown, proven=VECTOR in self.proven
            )
        for (_, outcome, _), vector, reason in zip(shown, vectors, reasons, strict=True):
            if vector is not None and np.isfinite(vector).all() and vector.any():
                outcome.vector = vector
                self.proven.add(VECTOR)
            else:
                outcome.error = f"embedder: {reason or 'the vector is 0 or not finite'}"


def _distances(keys: Sequence[tuple[str, int, int]], outcomes: Sequence[_Outcome]) -> dict[tuple[str, int], float]:
    """Return the mean pairwise distance among a prompt's images by refiner and prompt; NaN for fewer than two."""
    vectors: dict[tuple[str, int], list[NDArray[np.float32]]] = {}
    for (refiner, number, _), outcome in zip(keys, outcomes, strict=True):
        group = vectors.setdefault((refiner, number), [])
        if outcome.vector is not None:
            group.append(outcome.vector)
    return {
        key: mean_pairwise_distance(np.stack(group)) if len(group) > 1 else math.nan for key, group in vectors.items()
    }


def _stack(shown: Sequence[_Shown]) -> Images:
    return torch.stack([one.image for one in shown])
