"""What a prompt of the miniature asks for, and what an image of it shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import torch

from .vocabulary import ATTRIBUTES, MODIFIERS, OPEN_DISTRIBUTION, PLACES, SUBJECTS

FACTORS: tuple[str, ...] = ("subject", "place", *ATTRIBUTES)
"""The columns of a scene, in order."""
FACTOR_SIZES: tuple[int, ...] = (len(SUBJECTS), len(PLACES), *(len(values) for values in ATTRIBUTES.values()))
"""How many values each factor has."""


@dataclass(frozen=True)
class Request:
    """What a prompt says of each factor: an index into its values, or None where it leaves the factor open."""

    values: tuple[int | None, ...]

    def __getitem__(self, factor: str) -> int | None:
        return self.values[FACTORS.index(factor)]


@cache
def _phrases() -> tuple[tuple[re.Pattern[str], str, int], ...]:
    """Every phrase that means something, longest first: (pattern, factor, index)."""
    rows: list[tuple[str, str, int]] = []
    for index, subject in enumerate(SUBJECTS):
        rows += [(noun, "subject", index) for noun in {subject.name, *subject.user_nouns}]
    for index, place in enumerate(PLACES):
        rows += [(phrase, "place", index) for phrase in (*place.user_phrases, place.system_phrase)]
    rows += [(modifier, attribute, index) for modifier, (attribute, index) in MODIFIERS.items()]
    rows.sort(key=lambda row: -len(row[0]))
    return tuple((re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)"), factor, index) for phrase, factor, index in rows)


def parse(prompt: str) -> Request:
    """Reads a prompt: longer phrases win over shorter ones, and of two for one factor the first in the text."""
    text = prompt.lower()
    found: dict[str, tuple[int, int]] = {}
    for pattern, factor, index in _phrases():
        for match in pattern.finditer(text):
            if factor not in found or match.start() < found[factor][0]:
                found[factor] = (match.start(), index)
            text = text[: match.start()] + "\0" * len(match.group()) + text[match.end() :]
    return Request(tuple(found[factor][1] if factor in found else None for factor in FACTORS))


def mentioned_subjects(text: str) -> set[str]:
    """Names of all subjects that a text mentions by any of their nouns."""
    text, names = text.lower(), set()
    for pattern, factor, index in _phrases():
        for match in pattern.finditer(text):
            if factor == "subject":
                names.add(SUBJECTS[index].name)
            text = text[: match.start()] + "\0" * len(match.group()) + text[match.end() :]
    return names


def sample_scene(request: Request, generator: torch.Generator) -> tuple[int, ...]:
    """Fills what the request leaves open: subject and place uniformly, attributes by `OPEN_DISTRIBUTION`."""
    open_attribute = torch.multinomial(torch.tensor(OPEN_DISTRIBUTION), len(ATTRIBUTES), True, generator=generator)
    open_values = [
        int(torch.randint(len(SUBJECTS), (), generator=generator)),
        int(torch.randint(len(PLACES), (), generator=generator)),
        *open_attribute.tolist(),
    ]
    return tuple(
        open_value if asked is None else asked for asked, open_value in zip(request.values, open_values, strict=True)
    )
