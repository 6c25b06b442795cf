"""Images drawn once and scored by every reward, with a cache for those of plain prompts."""

from __future__ import annotations

import json
import logging
import math
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prip.errors import CheckpointError, InputError
from prip.files import replace_text
from prip.fingerprints import fingerprints
from prip.generators.safety import blackened
from prip.protocols import Generator, Reward

from .offloading import Offloading

_log = logging.getLogger(__name__)
Pair = tuple[str, int]
"""A user prompt and the seed of its image."""


class RawScores(dict[str, Tensor]):
    """Raw scores of images, float32 (n,) by reward; NaN for images that a safety checker blackened."""

    def __init__(self, scores: Mapping[str, Tensor], blackened: Tensor) -> None:
        super().__init__(scores)
        self.blackened = blackened
        """bool (n,)"""


class PlainScoreCache:
    """Raw scores of plain images by user prompt, seed and reward: a folder of JSON files that processes can share.

    The score None is that of an image that a safety checker blackened.

    Each `add` writes one new file atomically; files never change afterwards. Files that other processes have added are
    read whenever a requested score is unknown.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._read: set[str] = set()
        self._scores: dict[Pair, dict[str, float | None]] = {}
        self._moments: dict[str, set[Pair]] = {}

    def __len__(self) -> int:
        self._refresh()
        return sum(len(scores) for scores in self._scores.values())

    def read(self, pairs: Iterable[Pair], names: Sequence[str]) -> dict[Pair, dict[str, float | None]]:
        """Return the scores of those `pairs` that every reward in `names` has scored."""
        distinct = list(dict.fromkeys(pairs))

        def known() -> dict[Pair, dict[str, float | None]]:
            cached = {pair: self._scores.get(pair, {}) for pair in distinct}
            return {pair: scores for pair, scores in cached.items() if scores.keys() >= set(names)}

        scores = known()
        if len(scores) < len(distinct):
            self._refresh()
            scores = known()
        return scores

    def added_at(self, moment: str, pairs: Iterable[Pair]) -> int:
        """Return the number of distinct `pairs` that any process has added under the name `moment`."""
        return len(self._moments.get(moment, set()).intersection(pairs))

    def add(self, scores: Mapping[Pair, Mapping[str, float | None]], moment: str = "") -> None:
        """Store `scores` in one atomic write. `moment` names the point of the run at which they were computed."""
        entry = {"moment": moment, "scores": [[*pair, dict(by_reward)] for pair, by_reward in scores.items()]}
        name = f"{uuid.uuid4().hex}.json"
        replace_text(self.folder / name, json.dumps(entry, ensure_ascii=False) + "\n")
        self._take(name, entry)

    def _refresh(self) -> None:
        names = {entry.name for entry in os.scandir(self.folder) if not entry.name.startswith(".")}
        for name in sorted(names - self._read):
            path = self.folder / name
            try:
                self._take(name, json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path}: expected scores of plain images, got {error}") from error

    def _take(self, name: str, entry: dict[str, Any]) -> None:
        moment = self._moments.setdefault(entry["moment"], set())
        for user_prompt, seed, by_reward in entry["scores"]:
            self._scores.setdefault((user_prompt, seed), {}).update(by_reward)
            moment.add((user_prompt, seed))
        self._read.add(name)


class ImageScorer:
    """Draws prompts and scores their images for the user prompts, except those that a safety checker blackened.

    Args:
        generator: Draws the images.
        rewards: Score them; at least one, with distinct names. Raises InputError otherwise.
        cache: Scores of plain images.
        chunk: Images drawn, kept and scored at once.
        offloading: Moves the parts `generator` and `rewards`; None leaves them in place.
    """

    def __init__(
        self,
        generator: Generator,
        rewards: Sequence[Reward],
        cache: PlainScoreCache,
        chunk: int = 256,
        offloading: Offloading | None = None,
    ) -> None:
        self.generator, self.rewards, self.cache, self.chunk = generator, list(rewards), cache, chunk
        self.offloading = offloading or Offloading({})
        self.names = [reward.name for reward in self.rewards]
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"rewards: expected one or more with distinct names, got {self.names}")

    def score(self, user_prompts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> RawScores:
        """Return the raw scores of the images of `prompts`; equal images are drawn once."""
        jobs = list(zip(user_prompts, prompts, seeds, strict=True))
        rows = {job: row for row, job in enumerate(dict.fromkeys(jobs))}
        distinct = list(rows)
        chunks = [self._score(distinct[start : start + self.chunk]) for start in range(0, len(distinct), self.chunk)]
        order = torch.tensor([rows[job] for job in jobs], dtype=torch.long)
        return RawScores(
            {name: torch.cat([scores[name] for scores in chunks])[order] for name in self.names},
            torch.cat([scores.blackened for scores in chunks])[order],
        )

    def score_plain(self, user_prompts: Sequence[str], seeds: Sequence[int], moment: str = "") -> RawScores:
        """Return the raw scores of the plain images.

        Images that the cache lacks are drawn, and their scores added to it under the name `moment`.
        """
        pairs = list(zip(user_prompts, seeds, strict=True))
        known = self.cache.read(pairs, self.names)
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        for start in range(0, len(missing), self.chunk):
            chunk = missing[start : start + self.chunk]
            scores = self._score([(user_prompt, user_prompt, seed) for user_prompt, seed in chunk])
            drawn: dict[Pair, dict[str, float | None]] = {
                pair: {name: None if scores.blackened[row] else scores[name][row].item() for name in self.names}
                for row, pair in enumerate(chunk)
            }
            self.cache.add(drawn, moment)
            known |= drawn
        columns = {name: [known[pair][name] for pair in pairs] for name in self.names}
        return RawScores(
            {
                name: torch.tensor([math.nan if score is None else score for score in column])
                for name, column in columns.items()
            },
            torch.tensor([score is None for score in columns[self.names[0]]], dtype=torch.bool),
        )

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return the images, uint8 (n, 3, height, width) on the CPU."""
        with self.offloading.using("generator"):
            return self.generator(prompts, seeds).cpu()

    @torch.no_grad()
    def _score(self, jobs: Sequence[tuple[str, str, int]]) -> RawScores:
        images = self.draw([job[1] for job in jobs], [job[2] for job in jobs])
        black = blackened(self.generator, images)
        shown = (~black).nonzero().squeeze(1)
        if len(shown) < len(jobs):
            count = len(jobs) - len(shown)
            _log.warning("leaving out %d of %d images that the safety checker blackened", count, len(jobs))
        user_prompts = [jobs[row][0] for row in shown.tolist()]
        scores = {name: torch.full((len(jobs),), math.nan) for name in self.names}
        with self.offloading.using("rewards"):
            for reward in self.rewards if user_prompts else []:
                scores[reward.name][shown] = reward(user_prompts, images[shown]).float().cpu()
        return RawScores(scores, black)


def drawing_inputs(generator: Generator, rewards: Sequence[Reward]) -> dict[str, str]:
    """Return the entries of inputs.json for a generator and rewards: hashes of their weights, and the sampling."""
    parts: dict[str, object] = {"generator": generator, **{f"reward {reward.name}": reward for reward in rewards}}
    return {**fingerprints(parts), "sampling": getattr(generator, "sampling", "")}
