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
    context: str = ""
    """Text of the same image that is not continued, such as the other regions of a prompt."""


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
    texts_of = {first: [text] for first, text in firsts.items()}
    attempts, failures = dict.fromkeys(texts_of, 0), dict.fromkeys(texts_of, 0)
    while True:
        jobs: dict[float, list[tuple[Job, Job]]] = {}
        for first, texts in texts_of.items():
            missing, before = wanted - len(texts), attempts[first]
            if missing > 0 and failures[first] < PATIENCE:
                attempts[first] = min(before + max(missing, before), ATTEMPTS)
            for number in range(before + 1, attempts[first] + 1):
                rises = (number - 1) // HOTTER_AFTER
                degree = max(temperature, 0.5) * 1.5**rises if rises else temperature
                jobs.setdefault(degree, []).append((first, first._replace(alternative=number)))
        if not jobs:
            return texts_of
        for degree in sorted(jobs):
            samples = draw([job for _, job in jobs[degree]], degree)
            for (first, _), text in zip(jobs[degree], samples, strict=True):
                if len(texts_of[first]) == wanted or failures[first] == PATIENCE:
                    continue
                if text is None or text in texts_of[first]:
                    failures[first] += 1
                else:
                    texts_of[first].append(text)
                    failures[first] = 0
