"""A generator and a judge, with a memory: a search draws nothing twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prip.protocols import Generator, Reward

from .analysis.statistics import Floats

_Key = tuple[str, str, int]


class Gallery:
    """Draws prompts, judges the images for the user prompts and remembers the scores, by prompt and seed."""

    def __init__(self, generator: Generator, judge: Reward, batch_size: int = 256) -> None:
        """batch_size: images that are drawn and judged at a time."""
        self.generator = generator
        self.judge = judge
        self.batch_size = batch_size
        self._scores: dict[_Key, float] = {}

    def scores(self, user_prompts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> Floats:
        """Returns what the judge gives the images of (prompt, seed) for the user prompts, `(n,)`."""
        keys = list(zip(user_prompts, prompts, seeds, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._scores]
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            asked, drawn, own_seeds = (list(column) for column in zip(*batch, strict=True))
            scores = self.judge(asked, self.generator(drawn, own_seeds))
            self._scores.update(zip(batch, scores.tolist(), strict=True))
        return np.array([self._scores[key] for key in keys], dtype=np.float64)
