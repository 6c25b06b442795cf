"""The grammar of the miniature: user prompts and system prompts, and which of them training may see."""

from __future__ import annotations

from functools import cache

import torch

from ..randomness import random_generator
from .vocabulary import ATTRIBUTES, NEUTRAL_MODIFIERS, PLACES, SUBJECTS, Place, Subject

SPLITS = ("train", "dev", "test")
SEEN_SPLITS = SPLITS[:2]
"""Those whose combinations may take part in training; judges know all."""
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
    """The split of a subject-place combination: of the places of each subject 5 are train, 1 is dev and 2 are test."""
    order = torch.randperm(len(PLACES), generator=random_generator("split", subject.name)).tolist()
    rank = order.index(PLACES.index(place))
    return SPLITS[0] if rank < 5 else SPLITS[1] if rank < 6 else SPLITS[2]


def combinations(split: str) -> list[tuple[Subject, Place]]:
    """All subject-place combinations of a split."""
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    return [(subject, place) for subject in SUBJECTS for place in PLACES if split_of(subject, place) == split]


def user_prompt(subject: Subject, place: Place | None, generator: torch.Generator) -> str:
    """What a user might type for a subject, in a place or leaving the place open."""
    noun = _choice(subject.user_nouns, generator)
    text = _choice(USER_TEMPLATES, generator).format(noun=noun, a=_article(noun))
    return text if place is None else f"{text} {_choice(place.user_phrases, generator)}"


def user_prompts(split: str, per_combination: int, seed: int, open_place: bool = False) -> list[tuple[str, str]]:
    """Rows (user prompt, subject name) of a split, duplicates removed.

    With `open_place`, prompts that name no place are added, `per_combination` for each subject.
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
    """Random modifiers of `least` to five different attributes, good and harmful alike, and at times a neutral one."""
    count = int(torch.randint(least, MAX_ATTRIBUTES + 1, (), generator=generator))
    attributes = list(ATTRIBUTES)
    chosen = [attributes[i] for i in torch.randperm(len(attributes), generator=generator)[:count].tolist()]
    modifiers = [_choice([m for value in ATTRIBUTES[a] for m in value.modifiers], generator) for a in chosen]
    if float(torch.rand((), generator=generator)) < 0.25:
        modifiers.append(_choice(NEUTRAL_MODIFIERS, generator))
    return [modifiers[i] for i in torch.randperm(len(modifiers), generator=generator).tolist()]


def system_subject(subject: Subject, place: Place | None) -> str:
    """How system prompts begin: "a cat in a forest"."""
    text = f"{_article(subject.name)} {subject.name}"
    return text if place is None else f"{text} {place.system_phrase}"


def system_prompt(split: str, generator: torch.Generator) -> str:
    """A system prompt of a random combination of the split, every fifth without a place."""
    subject, place = _choice(combinations(split), generator)
    open_place = float(torch.rand((), generator=generator)) < 0.2
    return ", ".join([system_subject(subject, None if open_place else place), *sample_modifiers(generator)])


@cache
def _combinations_of(splits: tuple[str, ...]) -> list[tuple[Subject, Place | None]]:
    return [pair for split in splits for pair in combinations(split)]


def caption(generator: torch.Generator, splits: tuple[str, ...] = SEEN_SPLITS) -> str:
    """A prompt in user or system language with no, some or all attributes: what image models are trained on.

    It names a combination of `splits`: training holds test combinations back.
    """
    subject, place = _choice(_combinations_of(splits), generator)
    if float(torch.rand((), generator=generator)) < 0.15:
        place = None
    in_user_language = float(torch.rand((), generator=generator)) < 0.5
    start = user_prompt(subject, place, generator) if in_user_language else system_subject(subject, place)
    plain = float(torch.rand((), generator=generator)) < 0.2
    return start if plain else ", ".join([start, *sample_modifiers(generator, least=1)])
