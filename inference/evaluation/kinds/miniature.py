"""The kinds that exist in the miniature alone: its prompts, its renderer, its judges, and the search for the best."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from prip.errors import InputError
from prip.miniature.judges import Judges, load_judges
from prip.miniature.prompts import sample_modifiers, user_prompts
from prip.miniature.renderer import Renderer
from prip.miniature.scene import parse
from prip.protocols import Generator, PromptRefiner, Reward
from prip.randomness import random_generator

from ...checkpoint_parts import existing
from .refiners import with_modifiers
from .registry import Context, EvaluationPrompt

SPLITS = ("test", "dev")


class RandomRefiner:
    """As many random modifiers, good and harmful alike, as system prompts of the miniature hold."""

    sampled = True

    def __init__(self, name: str = "random") -> None:
        self.name = name

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Returns each user prompt with modifiers that are a function of the prompt and its seed."""
        return [
            with_modifiers(prompt, sample_modifiers(random_generator("random refiner", prompt, seed)))
            for prompt, seed in zip(user_prompts, seeds, strict=True)
        ]


def make_prompts(
    name: str, context: Context, *, split: str = "test", per_combination: int = 2, subjects: int = 0
) -> list[EvaluationPrompt]:
    """The kind `miniature`: user prompts of a split that training has not seen; each subject is a cluster, and the
    phrasings of a subject in a place are a unit.

    per_combination: phrasings of each, duplicates counted once. subjects: so many, spread over all; 0 takes all.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, it is {split!r}")
    rows = user_prompts(split, per_combination, context.seed)
    names = list(dict.fromkeys(subject for _, subject in rows))
    if 0 < subjects < len(names):
        names = [names[place] for place in np.linspace(0, len(names) - 1, subjects).round().astype(int)]
    return [
        EvaluationPrompt(text, unit=f"{subject}/{parse(text)['place']}", cluster=subject)
        for text, subject in rows
        if subject in names
    ]


def make_random(name: str, context: Context) -> PromptRefiner:
    """The kind `random-modifiers`."""
    return RandomRefiner(name)


def make_renderer(name: str, context: Context) -> Generator:
    """The kind `renderer`: images of the size that the readers see."""
    return Renderer(size=judges(context).truth.reader.image_size)


@lru_cache(maxsize=2)
def judges(context: Context) -> Judges:
    """Returns the judges of the checkpoint, loaded once."""
    return load_judges(existing(context.parts.readers), context.device)


def make_truth(name: str, context: Context) -> Reward:
    """The kind `truth`."""
    return judges(context).truth


def make_second_reward(name: str, context: Context) -> Reward:
    """The kind `second-reward`."""
    return judges(context).second_reward


def make_subject_accuracy(name: str, context: Context) -> Reward:
    """The kind `subject-accuracy`."""
    return judges(context).subject_accuracy
