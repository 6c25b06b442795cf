"""A prompt log of the miniature's users, in DiffusionDB's columns: sessions that start from a plain prompt."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import torch

from prip.miniature.preference import preference_table
from prip.miniature.prompts import combinations, system_subject, user_prompt
from prip.miniature.vocabulary import ATTRIBUTES, SUBJECTS, Place, Subject
from prip.randomness import random_generator

from ..data.diffusiondb import Sampling, write_metadata
from ..data.sessions import NOBODY
from ..runs.seeds import derive_seed

BEGIN = datetime(2022, 8, 1, tzinfo=UTC)
FOLLOWERS = 0.3
"""Share of users who loosely follow the true preference; each of the others has a fashion of their own."""
TASTE = 1.0
"""Temperature at which users choose among values; higher is more random."""
STEPS = (0, 9)
"""Minimum and maximum number of changes per session."""
CHANGES = {"add": 0.55, "swap": 0.2, "drop": 0.1, "again": 0.15}
"""Probabilities of a change: add a modifier, swap one for another of its attribute, drop one, or draw the same prompt
again."""
PLAIN, REPHRASED, UNKNOWN, OPEN_PLACE = 0.85, 0.1, 0.02, 0.2
"""Shares of sessions that start without a modifier, sessions in which the user rephrases the subject, users with a
deleted account, and sessions without a place."""


@dataclass(frozen=True)
class Entry:
    """A logged prompt."""

    user: str
    time: datetime
    prompt: str
    seed: int


def write_log(folder: Path, users: int, sessions: int, seed: int) -> None:
    """Write FOLDER/metadata.parquet in DiffusionDB's columns: `sessions` sessions of each of `users` users, by time,
    with combinations of the train split only."""
    entries = sorted(
        (entry for user in range(users) for entry in _entries(user, sessions, seed)), key=lambda entry: entry.time
    )
    write_metadata(
        folder,
        [entry.prompt for entry in entries],
        [entry.seed for entry in entries],
        Sampling(8, 2.0),
        32,
        32,
        [entry.user for entry in entries],
        [entry.time for entry in entries],
    )


def _entries(number: int, sessions: int, seed: int) -> Iterator[Entry]:
    """Yield one user's entries. Some sessions follow within minutes, most after hours or days."""
    chance = random.Random(derive_seed("log", seed, number))
    name = hashlib.sha256(f"{seed} user {number}".encode()).hexdigest()
    name = NOBODY[1] if chance.random() < UNKNOWN else name
    fashion = None if chance.random() < FOLLOWERS else torch.rand(len(ATTRIBUTES), 4, generator=_generator(chance))
    time = BEGIN + timedelta(days=14 * chance.random())
    for _ in range(sessions):
        for prompt in _session(chance, fashion):
            yield Entry(name, time, prompt, chance.randrange(2**32))
            time += timedelta(minutes=0.3 + chance.expovariate(1 / 2))
        time += timedelta(minutes=5 if chance.random() < 0.2 else 60 + chance.expovariate(1 / 1200))


def _session(chance: random.Random, fashion: torch.Tensor | None) -> Iterator[str]:
    """Yield the prompts of a session, about one subject.

    fashion: worth of each value to the user, float (attributes, values); None follows the true preference.
    """
    generator = _generator(chance)
    subject, place = chance.choice(_combinations())
    shown_place = None if chance.random() < OPEN_PLACE else place
    start, modifiers = user_prompt(subject, shown_place, generator), dict[str, str]()
    worth = preference_table()[SUBJECTS.index(subject)] if fashion is None else fashion
    if chance.random() > PLAIN:
        _change(chance, worth, modifiers, "add")
    yield _text(start, modifiers)
    steps = chance.randint(*STEPS)
    rephrased = chance.randrange(steps) if steps and chance.random() < REPHRASED else -1
    for step in range(steps):
        if step == rephrased:
            start = chance.choice([system_subject(subject, shown_place), user_prompt(subject, shown_place, generator)])
        _change(chance, worth, modifiers, chance.choices(list(CHANGES), list(CHANGES.values()))[0])
        yield _text(start, modifiers)


def _change(chance: random.Random, worth: torch.Tensor, modifiers: dict[str, str], kind: str) -> None:
    """Apply one change to the modifiers, by attribute; if it is not possible, add one or do nothing."""
    if kind == "again":
        return
    if kind == "drop" and modifiers:
        del modifiers[chance.choice(list(modifiers))]
        return
    open_attributes = [name for name in ATTRIBUTES if name not in modifiers]
    among = list(modifiers) if kind == "swap" and modifiers else open_attributes
    if not among:
        return
    attribute = chance.choice(among)
    modifiers.pop(attribute, None)
    values = ATTRIBUTES[attribute]
    weights = torch.softmax(worth[list(ATTRIBUTES).index(attribute)] / TASTE, dim=0).tolist()
    modifiers[attribute] = chance.choice(chance.choices(values, weights)[0].modifiers)


@cache
def _combinations() -> list[tuple[Subject, Place]]:
    return combinations("train")


def _text(start: str, modifiers: dict[str, str]) -> str:
    return ", ".join([start, *modifiers.values()])


def _generator(chance: random.Random) -> torch.Generator:
    return random_generator("log", chance.random())
