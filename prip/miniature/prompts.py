"""The grammar of the miniature: user prompts, system prompts, and their splits."""

from __future__ import annotations

from functools import cache

import torch

from ..randomness import random_generator
from .vocabulary import ATTRIBUTES, NEUTRAL_MODIFIERS, PLACES, SUBJECTS, Place, Subject

SPLITS = ("train", "dev", "test")
SEEN_SPLITS = SPLITS[:2]
"""Splits whose combinations training may use; judges know all."""
USER_TEMPLATES = (
    "{noun}",
    "{a} {noun}",
    "a picture of {a} {noun}",
    "draw me {a} {noun}",
    "i want {a} {noun}",
    "one {noun}",
)
MAX_ATTRIBUTES = 5


def _choice(options, generator: torch.Generator):
    return options[int(torch.randint(len(options), (), generator=generator))]


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def split_of(subject: Subject, place: Place) -> str:
    """Return the split of a subject and place: each subject has 5 places in train, 1 in dev and 2 in test."""
    order = torch.randperm(len(PLACES), generator=random_generator("split", subject.name)).tolist()
    rank = order.index(PLACES.index(place))
    return SPLITS[0] if rank < 5 else SPLITS[1] if rank < 6 else SPLITS[2]


def combinations(split: str) -> list[tuple[Subject, Place]]:
    """Return all combinations of subject and place in a split."""
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    return [(subject, place) for subject in SUBJECTS for place in PLACES if split_of(subject, place) == split]


def user_prompt(subject: Subject, place: Place | None, generator: torch.Generator) -> str:
    """Return what a user might type for a subject, with or without a place."""
    noun = _choice(subject.user_nouns, generator)
    text = _choice(USER_TEMPLATES, generator).format(noun=noun, a=_article(noun))
    return text if place is None else f"{text} {_choice(place.user_phrases, generator)}"


def user_prompts(split: str, per_combination: int, seed: int, open_place: bool = False) -> list[tuple[str, str]]:
    """Return distinct rows (user prompt, subject name) of a split.

    `open_place` adds prompts without a place, `per_combination` for each subject.
    """
    rows: dict[str, str] = {}
    pairs: list[tuple[Subject, Place | None]] = [*combinations(split)]
    if open_place:
        pairs += [(subject, None) for subject in SUBJECTS]
    for subject, place in pairs:
        generator = random_generator("user prompts", seed, split, subject.name, place and place.name)
        for _ in range(per_combination):
            rows.setdefault(user_prompt(subject, place, generator), subject.name)
    return list(rows.items())


def sample_modifiers(generator: torch.Generator, least: int = 2) -> list[str]:
    """Sample modifiers, good or harmful, of `least` to five different attributes, and sometimes a neutral one."""
    count = int(torch.randint(least, MAX_ATTRIBUTES + 1, (), generator=generator))
    attributes = list(ATTRIBUTES)
    chosen = [attributes[i] for i in torch.randperm(len(attributes), generator=generator)[:count].tolist()]
    modifiers = [_choice([m for value in ATTRIBUTES[a] for m in value.modifiers], generator) for a in chosen]
    if float(torch.rand((), generator=generator)) < 0.25:
        modifiers.append(_choice(NEUTRAL_MODIFIERS, generator))
    return [modifiers[i] for i in torch.randperm(len(modifiers), generator=generator).tolist()]


def system_subject(subject: Subject, place: Place | None) -> str:
    """Return the beginning of a system prompt: "a cat in a forest"."""
    text = f"{_article(subject.name)} {subject.name}"
    return text if place is None else f"{text} {place.system_phrase}"


def system_prompt(split: str, generator: torch.Generator) -> str:
    """Sample a system prompt of a random combination in a split; every fifth has no place."""
    subject, place = _choice(combinations(split), generator)
    open_place = float(torch.rand((), generator=generator)) < 0.2
    return ", ".join([system_subject(subject, None if open_place else place), *sample_modifiers(generator)])


@cache
def _combinations_of(splits: tuple[str, ...]) -> list[tuple[Subject, Place | None]]:
    return [pair for split in splits for pair in combinations(split)]


def caption(generator: torch.Generator, splits: tuple[str, ...] = SEEN_SPLITS) -> str:
    """Sample a training caption of an image model: user or system language, with any number of attributes.

    It names a combination of `splits`: training holds test combinations back.
    """
    subject, place = _choice(_combinations_of(splits), generator)
    if float(torch.rand((), generator=generator)) < 0.15:
        place = None
    in_user_language = float(torch.rand((), generator=generator)) < 0.5
    start = user_prompt(subject, place, generator) if in_user_language else system_subject(subject, place)
    plain = float(torch.rand((), generator=generator)) < 0.2
    return start if plain else ", ".join([start, *sample_modifiers(generator, least=1)])
