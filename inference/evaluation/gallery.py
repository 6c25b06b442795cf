"""A generator and judges, with a memory: nothing is drawn twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prip.protocols import Generator, Reward

from .statistics import Floats

_Key = tuple[str, str, int]


class Gallery:
    """Draws prompts, judges the images for the user prompts and remembers the scores, by prompt and seed."""

    def __init__(
        self, generator: Generator, judges: Mapping[str, Reward], batch_size: int = 256, progress: bool = False
    ) -> None:
        """`batch_size` images are drawn and judged at a time; `progress` shows a bar on the error stream."""
        self.generator = generator
        self.judges = dict(judges)
        self.batch_size = batch_size
        self.progress = progress
        self.drawn = 0
        self._scores: dict[_Key, dict[str, float]] = {}

    def scores(
        self,
        user_prompts: Sequence[str],
        prompts: Sequence[str],
        seeds: Sequence[int],
        judges: Sequence[str] | None = None,
        label: str = "",
    ) -> dict[str, Floats]:
        """Return what each judge (all by default) gives the images of (prompt, seed) for the user prompts, `(n,)` each.

        `label` stands before the progress bar.
        """
        names = list(self.judges if judges is None else judges)
        keys = list(zip(user_prompts, prompts, seeds, strict=True))
        missing = [key for key in dict.fromkeys(keys) if not self._scores.get(key, {}).keys() >= set(names)]
        self._draw(missing, names, label)
        return {name: np.array([self._scores[key][name] for key in keys], dtype=np.float64) for name in names}

    def _draw(self, keys: Sequence[_Key], names: Sequence[str], label: str) -> None:
        from tqdm import tqdm

        with tqdm(
            total=len(keys), desc=label, unit=" images", leave=False, disable=not (self.progress and keys)
        ) as bar:
            for start in range(0, len(keys), self.batch_size):
                batch = keys[start : start + self.batch_size]
                user_prompts, prompts, seeds = (list(column) for column in zip(*batch, strict=True))
                images = self.generator(prompts, seeds)
                self.drawn += len(batch)
                for name in names:
                    for key, score in zip(batch, self.judges[name](user_prompts, images).tolist(), strict=True):
                        self._scores.setdefault(key, {})[name] = score
                bar.update(len(batch))
