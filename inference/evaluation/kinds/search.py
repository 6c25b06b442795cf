"""Coordinate ascent over modifiers, and the refiner `best`, which searches with a judge that no other refiner sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prip.errors import InputError
from prip.miniature.vocabulary import ATTRIBUTES, MODIFIERS
from prip.options import check_whole
from prip.protocols import Generator, Reward

from ..analysis.statistics import Floats
from ..gallery import Gallery
from .refiners import with_modifiers
from .registry import BEST_JUDGE, Context
from .seeds import search_seeds

State = tuple[str | None, ...]
"""A modifier or None for each attribute, in the order of `vocabulary.ATTRIBUTES`."""
Score = Callable[[Sequence[tuple[int, State]]], Floats]
"""Scores `(n,)` of candidates, each a unit of the search and its state."""
Options = Callable[[State, int], Sequence[str | None]]
"""What may stand at an axis of a state."""

OPEN: State = (None,) * len(ATTRIBUTES)


def ascend(score: Score, states: Sequence[State], values: Floats, options: Options) -> tuple[list[State], Floats]:
    """One pass of coordinate ascent, all units at once: axis by axis, each takes its best option if that is better.

    `states` and their scores `values` are `(units,)`; returned are the new ones.
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


class BestRefiner:
    """Finds modifiers for each user prompt by searching on one generator with one judge."""

    sampled = False

    def __init__(
        self,
        name: str,
        generator: Generator,
        judge: Reward,
        images: int = 4,
        passes: int = 1,
        wordings: int = 2,
        seed: int = 0,
        batch_size: int = 256,
    ) -> None:
        """images: drawn of each candidate, from search seeds of its user prompt. passes: of the ascent over all
        attributes. wordings: modifiers tried for the chosen value of each attribute, after the ascent over values."""
        self.name = name
        self.generator, self.judge = generator, judge
        self.images, self.passes, self.wordings = images, passes, wordings
        self.seed, self.batch_size = seed, batch_size

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Returns each user prompt with the modifiers that its search has found; `seeds` play no part."""
        distinct = list(dict.fromkeys(user_prompts))
        found = dict(zip(distinct, self._search(distinct), strict=True))
        return [with_modifiers(prompt, modifiers_of(found[prompt])) for prompt in user_prompts]

    def _search(self, user_prompts: Sequence[str]) -> list[State]:
        gallery = Gallery(self.generator, self.judge, self.batch_size)

        def score(candidates: Sequence[tuple[int, State]]) -> Floats:
            asked = [user_prompts[unit] for unit, _ in candidates for _ in range(self.images)]
            seeds = [
                seed for unit, _ in candidates for seed in search_seeds(user_prompts[unit], self.images, self.seed)
            ]
            drawn = [
                with_modifiers(user_prompts[unit], modifiers_of(state))
                for unit, state in candidates
                for _ in range(self.images)
            ]
            return gallery.scores(asked, drawn, seeds).reshape(len(candidates), -1).mean(1)

        states: list[State] = [OPEN] * len(user_prompts)
        values = score(list(enumerate(states)))
        for _ in range(self.passes):
            states, values = ascend(score, states, values, value_options)
        return ascend(score, states, values, lambda state, axis: wording_options(state, axis, self.wordings))[0]


class BestOnEach:
    """`best` before it knows its generator: a `PerGenerator`."""

    def __init__(self, name: str, judge: str, seed: int, **options: int) -> None:
        self.name, self.judge, self.seed, self.options = name, judge, seed, options

    def on(self, generator: Generator, scorers: Mapping[str, Reward], batch_size: int) -> BestRefiner:
        """Returns the refiner that searches on this generator. Raises InputError where its judge is no scorer."""
        if self.judge not in scorers:
            raise InputError(f"refiner {self.name!r}: judge must be of {', '.join(scorers)}, it is {self.judge!r}")
        options = {**self.options, "seed": self.seed, "batch_size": batch_size}
        return BestRefiner(self.name, generator, scorers[self.judge], **options)


def make_best(
    name: str, context: Context, *, judge: str = BEST_JUDGE, images: int = 4, passes: int = 1, wordings: int = 2
) -> BestOnEach:
    """The kind `best`: what one could reach, found by a judge that no other refiner sees, on seeds of its own.

    judge: name of a scorer. The rest is explained at `BestRefiner`.
    """
    for option, value, least in (("images", images, 1), ("passes", passes, 0), ("wordings", wordings, 1)):
        check_whole(f"refiner {name!r}: {option}", value, least)
    return BestOnEach(name, judge, context.seed, images=images, passes=passes, wordings=wordings)
