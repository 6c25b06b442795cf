"""Distinct texts for one prompt: sampled ones, hotter where they come out equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

ATTEMPTS = 96
"""How often at most is sampled for the texts of a prompt."""
PATIENCE = 24
"""After so many attempts one after another that came out equal, there are no more texts."""
HOTTER_AFTER = 8
"""attempts, and again after as many."""


class Job(NamedTuple):
    """One text to make."""

    user_prompt: str
    seed: int
    alternative: int = 0
    """number of the source of randomness"""


Draw = Callable[[Sequence[Job], float], Sequence[str | None]]
"""Makes the text of each job at a temperature; None where there is no room."""


def find_alternatives(firsts: Mapping[Job, str], wanted: int, temperature: float, draw: Draw) -> dict[Job, list[str]]:
    """Return the distinct texts of each first job, its own one leading; fewer than `wanted` when there are no more.

    firsts: what came of each user prompt and seed at first. temperature: of the first attempts; later ones are hotter.
    What an attempt gives depends on its job and number alone, not on the others: who asks for more texts gets the same
    first ones.
    """
    found = {first: [text] for first, text in firsts.items()}
    tried, vain = dict.fromkeys(found, 0), dict.fromkeys(found, 0)
    while True:
        asked: dict[float, list[tuple[Job, Job]]] = {}
        for first, texts in found.items():
            missing, before = wanted - len(texts), tried[first]
            if missing > 0 and vain[first] < PATIENCE:
                tried[first] = min(before + max(missing, before), ATTEMPTS)
            for number in range(before + 1, tried[first] + 1):
                degree = _heated(temperature, (number - 1) // HOTTER_AFTER)
                asked.setdefault(degree, []).append((first, first._replace(alternative=number)))
        if not asked:
            return found
        for degree in sorted(asked):
            made = draw([job for _, job in asked[degree]], degree)
            for (first, _), one in zip(asked[degree], made, strict=True):
                if len(found[first]) == wanted or vain[first] == PATIENCE:
                    continue
                if one is None or one in found[first]:
                    vain[first] += 1
                else:
                    found[first].append(one)
                    vain[first] = 0


def _heated(temperature: float, times: int) -> float:
    return max(temperature, 0.5) * 1.5**times if times else temperature
