"""Distinct texts for one prompt: greedy ones that avoid how those before began; where none is left, sampled ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .processing import modifiers_added
from .words import words_of

ATTEMPTS = 96
"""How often at most is sampled for the texts of a prompt."""
HOTTER_AFTER = 8
"""attempts, and again after as many."""
AVOIDED = 2
"""How many modifiers of each text before, from the first on, the next one avoids."""


class Job(NamedTuple):
    """One text to make."""

    user_prompt: str
    seed: int
    alternative: int = 0
    """number of the source of randomness"""
    avoided: tuple[str, ...] = ()
    """terms that do not come about"""


class Made(NamedTuple):
    """What came of a job."""

    text: str
    whole: str
    """the text with all that the decoder made, of which `text` may leave the end away"""


Draw = Callable[[Sequence[Job], float], Sequence[Made | None]]
"""Does jobs at a temperature; None where there is no room."""


def find_alternatives(firsts: Mapping[Job, Made], wanted: int, temperature: float, draw: Draw) -> dict[Job, list[str]]:
    """Return the distinct texts of each first job, its own one leading; fewer than `wanted` when there are no more.

    firsts: what came of each user prompt and seed at first. temperature: 0 avoids and then samples at 1, above 0 all
    are sampled. What a job gets does not depend on the others.
    """
    found = {first: [made.text] for first, made in firsts.items()}
    if temperature == 0:
        _avoiding(firsts, found, wanted, draw)
    _sampling(found, wanted, temperature or 1.0, draw)
    return found


def terms_to_avoid(modifiers: Sequence[str]) -> list[str]:
    """Return the first AVOIDED of the modifiers as terms, lower-case words with single spaces."""
    return [term for modifier in modifiers[:AVOIDED] if (term := " ".join(words_of(modifier)))]


def _terms_of(job: Job, made: Made) -> tuple[str, ...]:
    return tuple(terms_to_avoid(modifiers_added(job.user_prompt, made.whole)))


def _avoiding(firsts: Mapping[Job, Made], found: dict[Job, list[str]], wanted: int, draw: Draw) -> None:
    """Add greedy texts to each first job's until they are enough or one is of no use."""
    avoided = {
        first: tuple(terms_to_avoid(modifiers_added(first.user_prompt, made.whole))) for first, made in firsts.items()
    }
    for _ in range(wanted - 1):
        asked = [(first, first._replace(avoided=terms)) for first, terms in avoided.items()]
        for (first, job), made in zip(asked, draw([job for _, job in asked], 0.0), strict=True):
            if made is None or made.text in found[first]:
                del avoided[first]
            else:
                found[first].append(made.text)
                avoided[first] = tuple(dict.fromkeys([*job.avoided, *_terms_of(first, made)]))


def _sampling(found: dict[Job, list[str]], wanted: int, temperature: float, draw: Draw) -> None:
    """Add sampled texts to each first job's until they are enough, in the order of the attempts.

    An attempt depends on its number and on nothing else: who asks for more texts gets the same first ones.
    """
    tried = dict.fromkeys(found, 0)
    while True:
        asked: dict[float, list[tuple[Job, Job]]] = {}
        for first, texts in found.items():
            missing, before = wanted - len(texts), tried[first]
            if missing > 0:
                tried[first] = min(before + max(missing, before), ATTEMPTS)
            for number in range(before + 1, tried[first] + 1):
                degree = _heated(temperature, (number - 1) // HOTTER_AFTER)
                asked.setdefault(degree, []).append((first, first._replace(alternative=number)))
        if not asked:
            return
        for degree in sorted(asked):
            made = draw([job for _, job in asked[degree]], degree)
            for (first, _), one in zip(asked[degree], made, strict=True):
                if one is not None and one.text not in found[first] and len(found[first]) < wanted:
                    found[first].append(one.text)


def _heated(temperature: float, times: int) -> float:
    return max(temperature, 0.5) * 1.5**times if times else temperature
