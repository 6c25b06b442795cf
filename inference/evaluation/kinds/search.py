"""Coordinate ascent over modifiers, and the refiner `best`, which searches with a judge that no other refiner sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prip.errors import InputError
from prip.generators.safety import blackened
from prip.miniature.vocabulary import ATTRIBUTES, MODIFIERS
from prip.options import check_whole
from prip.protocols import Generator, Reward

from .refiners import with_modifiers
from .registry import BEST_JUDGE, Context
from .seeds import search_seeds

Scores = NDArray[np.float64]
State = tuple[str | None, ...]
"""A modifier or None for each attribute, in the order of `vocabulary.ATTRIBUTES`."""
Score = Callable[[Sequence[tuple[int, State]]], Scores]
"""Scores `(n,)` of candidates, each the index of a search unit and its state."""
Options = Callable[[State, int], Sequence[str | None]]
"""The modifiers to try for one attribute of a state."""

OPEN: State = (None,) * len(ATTRIBUTES)


class Gallery:
    """Draws prompts, scores the images for their user prompts, and caches the scores by prompts and seed."""

    def __init__(self, generator: Generator, judge: Reward, batch_size: int = 256) -> None:
        """batch_size: images that are drawn and judged at a time."""
        self.generator = generator
        self.judge = judge
        self.batch_size = batch_size
        self._scores: dict[tuple[str, str, int], float] = {}

    def scores(self, user_prompts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]) -> Scores:
        """Return the judge's scores `(n,)` of the images of (prompt, seed) for the user prompts; NaN for images that
        a safety checker blackened."""
        keys = list(zip(user_prompts, prompts, seeds, strict=True))
        missing = [key for key in dict.fromkeys(keys) if key not in self._scores]
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            batch_user_prompts, batch_prompts, batch_seeds = (list(column) for column in zip(*batch, strict=True))
            images = self.generator(batch_prompts, batch_seeds)
            shown = (~blackened(self.generator, images)).nonzero().squeeze(1).tolist()
            self._scores.update(dict.fromkeys(batch, math.nan))
            if shown:
                scores = self.judge([batch_user_prompts[row] for row in shown], images[shown])
                self._scores.update(zip((batch[row] for row in shown), scores.tolist(), strict=True))
        return np.array([self._scores[key] for key in keys], dtype=np.float64)


def mean_scores(scores: Scores) -> Scores:
    """Return the mean of each row without NaN; -inf for a row of NaN, which no search may choose."""
    known = ~np.isnan(scores)
    sums, counts = np.where(known, scores, 0).sum(1), known.sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)


def ascend(score: Score, states: Sequence[State], values: Scores, options: Options) -> tuple[list[State], Scores]:
    """Make one pass of coordinate ascent: attribute by attribute, each unit takes its best option if that is better.

    Returns the new states and their scores `(units,)`; `values` are the scores of the given `states`.
    """
    current, best = list(states), values.copy()
    for axis in range(len(OPEN)):
        candidates = [
            (unit, (*state[:axis], option, *state[axis + 1 :]))
            for unit, state in enumerate(current)
            for option in options(state, axis)
            if option != state[axis]
        ]
        if not candidates:
            continue
        for (unit, state), value in zip(candidates, score(candidates), strict=True):
            if value > best[unit]:
                current[unit], best[unit] = state, value
    return current, best


def value_options(state: State, axis: int) -> list[str | None]:
    """Leave the attribute open, or ask for one of its values by the value's first modifier."""
    return [None, *(value.modifiers[0] for value in list(ATTRIBUTES.values())[axis])]


def wording_options(state: State, axis: int, wordings: int) -> list[str | None]:
    """Ask for the same value by one of its first `wordings` modifiers."""
    chosen = state[axis]
    if chosen is None:
        return [None]
    attribute, value = MODIFIERS[chosen]
    return list(ATTRIBUTES[attribute][value].modifiers[:wordings])


def modifiers_of(state: State) -> list[str]:
    """Return the modifiers of a state."""
    return [modifier for modifier in state if modifier is not None]


@dataclass(frozen=True)
class BestOptions:
    """How thoroughly `best` searches."""

    images: int = 4
    """Images per candidate, drawn from search seeds of its user prompt."""
    passes: int = 1
    """Passes of the ascent over all attributes."""
    wordings: int = 2
    """Modifiers tried for the chosen value of each attribute, after the ascent over values."""

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("passes", 0), ("wordings", 1)):
            check_whole(name, getattr(self, name), least)


class BestRefiner:
    """Finds modifiers for each user prompt by searching on one generator with one judge."""

    sampled = False

    def __init__(self, name: str, gallery: Gallery, options: BestOptions | None = None, *, seed: int = 0) -> None:
        """seed: of the evaluation."""
        self.name = name
        self.gallery = gallery
        self.options = options or BestOptions()
        self.seed = seed

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return each user prompt with the modifiers that its search has found; `seeds` are not used."""
        distinct = list(dict.fromkeys(user_prompts))
        states = dict(zip(distinct, self._search(distinct), strict=True))
        return [with_modifiers(prompt, modifiers_of(states[prompt])) for prompt in user_prompts]

    def _search(self, user_prompts: Sequence[str]) -> list[State]:
        images = self.options.images

        def score(candidates: Sequence[tuple[int, State]]) -> Scores:
            asked, drawn, seeds = [], [], []
            for unit, state in candidates:
                asked += [user_prompts[unit]] * images
                drawn += [with_modifiers(user_prompts[unit], modifiers_of(state))] * images
                seeds += search_seeds(user_prompts[unit], images, self.seed)
            return mean_scores(self.gallery.scores(asked, drawn, seeds).reshape(len(candidates), -1))

        states: list[State] = [OPEN] * len(user_prompts)
        values = score(list(enumerate(states)))
        for _ in range(self.options.passes):
            states, values = ascend(score, states, values, value_options)
        wordings = self.options.wordings
        return ascend(score, states, values, lambda state, axis: wording_options(state, axis, wordings))[0]


@dataclass(frozen=True)
class BestOnEach:
    """The `PerGenerator` of the kind `best`."""

    name: str
    judge: str
    options: BestOptions
    seed: int

    def on(self, generator: Generator, scorers: Mapping[str, Reward], batch_size: int) -> BestRefiner:
        """Return the refiner that searches on this generator. Raises InputError when its judge is not a scorer."""
        if self.judge not in scorers:
            raise InputError(
                f"refiner {self.name!r}: judge: expected one of the scorers {', '.join(scorers)}, got {self.judge!r}"
            )
        return BestRefiner(self.name, Gallery(generator, scorers[self.judge], batch_size), self.options, seed=self.seed)


def make_best(name: str, context: Context, *, judge: str = BEST_JUDGE, options: BestOptions) -> BestOnEach:
    """The kind `best`: the best that can be reached, found by a judge that no other refiner sees, on search seeds.

    judge: name of a scorer. The other options are those of `BestOptions`.
    """
    return BestOnEach(name, judge, options, context.seed)
