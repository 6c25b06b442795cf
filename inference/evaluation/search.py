"""`best`: coordinate ascent over modifiers by the judge truth, which no refiner sees: what one could reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prip.miniature.vocabulary import ATTRIBUTES, MODIFIERS

from .gallery import Gallery
from .refiners import with_modifiers
from .statistics import Floats

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
    """Finds modifiers for each unit, a prompt or a combination whose phrasings share one search, when first asked."""

    name = "best"

    def __init__(
        self,
        gallery: Gallery,
        unit_of: Mapping[str, str],
        seeds: Sequence[int],
        passes: int = 1,
        wordings: int = 2,
        judge: str = "truth",
    ) -> None:
        """`unit_of` maps user prompts to units; `seeds` are shared out evenly, so that units share no noise.

        A candidate is drawn from each seed of its unit, over the unit's prompts in turn, and scored by the mean.
        """
        self.gallery = gallery
        self.unit_of = dict(unit_of)
        self.passes = passes
        self.wordings = wordings
        self.judge = judge
        self.prompts: dict[str, list[str]] = {}
        for prompt, unit in unit_of.items():
            self.prompts.setdefault(unit, []).append(prompt)
        each = len(seeds) // len(self.prompts)
        if each < 1 or each * len(self.prompts) != len(seeds):
            raise ValueError(f"seeds: wanted as many for each of {len(self.prompts)} units, got {len(seeds)} in all")
        self.seeds = {unit: list(seeds[i * each : (i + 1) * each]) for i, unit in enumerate(self.prompts)}
        self.found: dict[str, State] = {}

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return each user prompt with the modifiers that its unit's search has found; `seeds` play no part."""
        missing = [u for u in dict.fromkeys(self.unit_of[prompt] for prompt in user_prompts) if u not in self.found]
        if missing:
            self.found.update(zip(missing, self._search(missing), strict=True))
        return [with_modifiers(prompt, modifiers_of(self.found[self.unit_of[prompt]])) for prompt in user_prompts]

    def _search(self, units: Sequence[str]) -> list[State]:
        def score(candidates: Sequence[tuple[int, State]]) -> Floats:
            rows = [row for unit, state in candidates for row in self._rows(units[unit], state)]
            user_prompts, prompts, seeds = zip(*rows, strict=True)
            label = f"{self.gallery.generator.name}: search for best"
            scores = self.gallery.scores(user_prompts, prompts, seeds, [self.judge], label)[self.judge]
            return scores.reshape(len(candidates), -1).mean(1)

        states: list[State] = [OPEN] * len(units)
        values = score(list(enumerate(states)))
        for _ in range(self.passes):
            states, values = ascend(score, states, values, value_options)
        return ascend(score, states, values, lambda state, axis: wording_options(state, axis, self.wordings))[0]

    def _rows(self, unit: str, state: State) -> list[tuple[str, str, int]]:
        """The images behind a candidate's score: (user prompt, prompt, seed)."""
        prompts, modifiers = self.prompts[unit], modifiers_of(state)
        chosen = [prompts[i % len(prompts)] for i in range(len(self.seeds[unit]))]
        return [(u, with_modifiers(u, modifiers), seed) for u, seed in zip(chosen, self.seeds[unit], strict=True)]
