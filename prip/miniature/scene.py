"""What a prompt of the miniature asks for, and what an image of it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch

from .vocabulary import ATTRIBUTES, MODIFIERS, OPEN_DISTRIBUTION, PLACES, SUBJECTS

FACTORS: tuple[str, ...] = ("subject", "place", *ATTRIBUTES)
"""The columns of a scene, in order."""
FACTOR_SIZES: tuple[int, ...] = (len(SUBJECTS), len(PLACES), *(len(values) for values in ATTRIBUTES.values()))
"""Number of values of each factor."""


@dataclass(frozen=True)
class Request:
    """What a prompt requests of each factor: an index into its values, or None if it leaves the factor open."""

    values: tuple[int | None, ...]

    def __getitem__(self, factor: str) -> int | None:
        return self.values[FACTORS.index(factor)]


@cache
def _phrases() -> tuple[tuple[re.Pattern[str], str, int], ...]:
    """Return (pattern, factor, index) of every phrase with a meaning, longest first."""
    rows: list[tuple[str, str, int]] = []
    for index, subject in enumerate(SUBJECTS):
        rows += [(noun, "subject", index) for noun in {subject.name, *subject.user_nouns}]
    for index, place in enumerate(PLACES):
        rows += [(phrase, "place", index) for phrase in (*place.user_phrases, place.system_phrase)]
    rows += [(modifier, attribute, index) for modifier, (attribute, index) in MODIFIERS.items()]
    rows.sort(key=lambda row: -len(row[0]))
    return tuple((re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)"), factor, index) for phrase, factor, index in rows)


def parse(prompt: str) -> Request:
    """Parse a prompt: longer phrases win over shorter ones, and of two for one factor the first in the text."""
    first: dict[str, tuple[int, int]] = {}
    for start, factor, index in _mentions(prompt):
        if factor not in first or start < first[factor][0]:
            first[factor] = (start, index)
    return Request(tuple(first[factor][1] if factor in first else None for factor in FACTORS))


def mentioned_subjects(text: str) -> set[str]:
    """Return the names of all subjects that a text mentions by any of their nouns."""
    return {SUBJECTS[index].name for _, factor, index in _mentions(text) if factor == "subject"}


def _mentions(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield (start, factor, index) of each phrase in a text; words of a longer phrase belong to no shorter one."""
    text = text.lower()
    for pattern, factor, index in _phrases():
        for match in pattern.finditer(text):
            yield match.start(), factor, index
            text = text[: match.start()] + "\0" * len(match.group()) + text[match.end() :]


def sample_scene(request: Request, generator: torch.Generator) -> tuple[int, ...]:
    """Complete a request: subject and place uniformly, attributes by `OPEN_DISTRIBUTION`."""
    attributes = torch.multinomial(torch.tensor(OPEN_DISTRIBUTION), len(ATTRIBUTES), True, generator=generator)
    open_values = [
        int(torch.randint(len(SUBJECTS), (), generator=generator)),
        int(torch.randint(len(PLACES), (), generator=generator)),
        *attributes.tolist(),
    ]
    pairs = zip(request.values, open_values, strict=True)
    return tuple(drawn if requested is None else requested for requested, drawn in pairs)
