"""Distinct texts for one prompt: greedy ones that avoid how those before began; where none is left, sampled ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .processing import modifiers_added
from .words import words_of

ROUNDS = 12
"""How often is sampled, each time hotter, for those that came out equal."""
AVOIDED = 2
"""How many modifiers of each text before, from the first on, the next one avoids."""


class Job(NamedTuple):
    """One text to make."""

    user_prompt: str
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


def find_alternatives(
    firsts: Mapping[str, Made], wanted: int, temperature: float, draw: Draw
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the distinct texts of each prompt, its first one leading, and the prompts that have fewer than `wanted`.

    firsts: what each user prompt began with. temperature: 0 avoids and then samples at 1, above 0 all are sampled.
    What a prompt gets does not depend on the others.
    """
    found = {prompt: [made.text] for prompt, made in firsts.items()}
    if temperature == 0:
        _avoiding(firsts, found, wanted, draw)
    _sampling(found, wanted, temperature or 1.0, draw)
    return found, [prompt for prompt, texts in found.items() if len(texts) < wanted]


def terms_to_avoid(modifiers: Sequence[str]) -> list[str]:
    """Return the first AVOIDED of the modifiers as terms, lower-case words with single spaces."""
    return [term for modifier in modifiers[:AVOIDED] if (term := " ".join(words_of(modifier)))]


def _avoiding(firsts: Mapping[str, Made], found: dict[str, list[str]], wanted: int, draw: Draw) -> None:
    """Add greedy texts to each prompt's until they are enough or one is of no use."""
    avoided = {prompt: tuple(terms_to_avoid(modifiers_added(prompt, made.whole))) for prompt, made in firsts.items()}
    for _ in range(wanted - 1):
        jobs = [Job(prompt, avoided=terms) for prompt, terms in avoided.items()]
        for (prompt, _, terms), made in zip(jobs, draw(jobs, 0.0), strict=True):
            if made is None or made.text in found[prompt]:
                del avoided[prompt]
            else:
                found[prompt].append(made.text)
                own = terms_to_avoid(modifiers_added(prompt, made.whole))
                avoided[prompt] = tuple(dict.fromkeys([*terms, *own]))


def _sampling(found: dict[str, list[str]], wanted: int, temperature: float, draw: Draw) -> None:
    """Add sampled texts to each prompt's until they are enough, hotter round by round."""
    tried = dict.fromkeys(found, 0)
    for _ in range(ROUNDS):
        jobs = [
            Job(prompt, tried[prompt] + i + 1) for prompt, texts in found.items() for i in range(wanted - len(texts))
        ]
        if not jobs:
            return
        for job, made in zip(jobs, draw(jobs, temperature), strict=True):
            tried[job.user_prompt] = job.alternative
            if made is not None and made.text not in found[job.user_prompt]:
                found[job.user_prompt].append(made.text)
        temperature = max(1.5 * temperature, 0.5)
