"""Distinct texts for one prompt: sampling is tried again, each time hotter, for those that came out equal."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

ROUNDS = 12
"""How often is tried."""

Job = TypeVar("Job", bound=Hashable)
"""What texts are made for: a user prompt and its seed."""


def find_alternatives(
    firsts: Mapping[Job, str],
    wanted: int,
    temperature: float,
    draw: Callable[[Sequence[tuple[Job, int]], float], Sequence[str | None]],
) -> dict[Job, list[str]]:
    """Return the distinct texts of each job, its first one leading; at most `wanted`, fewer when no more can be found.

    firsts: a text of each job. temperature: of the first round; 0 is 1. draw: makes a text at a temperature for each
    (job, number of the alternative); None where there is no room. What a job gets does not depend on the others.
    """
    found = {prompt: [text] for prompt, text in firsts.items()}
    missing = dict.fromkeys(firsts, wanted - 1)
    tried = dict.fromkeys(firsts, 0)
    hotter = temperature or 1.0
    for _ in range(ROUNDS):
        jobs = [(job, tried[job] + i + 1) for job, count in missing.items() for i in range(count)]
        if not jobs:
            break
        for (job, alternative), text in zip(jobs, draw(jobs, hotter), strict=True):
            tried[job] = alternative
            if text is not None and text not in found[job]:
                found[job].append(text)
                missing[job] -= 1
        hotter = max(1.5 * hotter, 0.5)
    return found
