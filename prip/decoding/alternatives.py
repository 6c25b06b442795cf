"""Alternatives: distinct texts for one prompt, sampled at a rising temperature until they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

ATTEMPTS = 96
"""Most samples per prompt."""
PATIENCE = 24
"""Samples in a row without a new text after which the search ends."""
HOTTER_AFTER = 8
"""Samples after which the temperature rises, each time again."""


class Job(NamedTuple):
    """One text to sample."""

    user_prompt: str
    seed: int
    alternative: int = 0
    """Number of the alternative, part of its random seed."""


Draw = Callable[[Sequence[Job], float], Sequence[str | None]]
"""Samples the text of each job at a temperature; None for a job without room."""


def find_alternatives(firsts: Mapping[Job, str], wanted: int, temperature: float, draw: Draw) -> dict[Job, list[str]]:
    """Return distinct texts for each first job.

    A sample depends on its job and number only: a larger `wanted` gives the same texts first.

    Args:
        firsts: The first text of each user prompt and seed.
        wanted: Texts per job.
        temperature: Of the first samples; it rises for later ones.
        draw: Samples texts.

    Returns:
        For each job its texts, the first text leading; fewer than `wanted` if no more are found.
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
