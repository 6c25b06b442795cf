"""The miniature's own kinds: its prompts, random modifiers, renderer and judges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch

from prip.miniature.judges import Judges, load_judges
from prip.miniature.preference import scene_preference
from prip.miniature.prompts import sample_modifiers, user_prompts
from prip.miniature.renderer import Renderer, render, sample_jitter
from prip.miniature.scene import parse, sample_scene
from prip.protocols import Generator, PromptRefiner, Reward
from prip.randomness import random_generator

from ...checkpoint_parts import existing
from ..analysis.statistics import correlation
from .refiners import with_modifiers
from .registry import Context, EvaluationPrompt

Split = Literal["test", "dev"]


class RandomRefiner:
    """Adds random modifiers, good and harmful alike, as many as system prompts of the miniature have."""

    sampled = True

    def __init__(self, name: str = "random") -> None:
        self.name = name

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return each user prompt with modifiers that depend on the prompt and its seed alone."""
        return [
            with_modifiers(prompt, sample_modifiers(random_generator("random refiner", prompt, seed)))
            for prompt, seed in zip(user_prompts, seeds, strict=True)
        ]


def make_prompts(
    name: str, context: Context, *, split: Split = "test", per_combination: int = 2, subjects: int = 0
) -> list[EvaluationPrompt]:
    """The kind `miniature`: user prompts of a split that training has not seen.

    Each subject is a cluster; the phrasings of a subject in a place are a unit.

    Args:
        split: The held-out split.
        per_combination: Phrasings per subject and place, without duplicates.
        subjects: Number of subjects, spread over all; 0 takes all.
    """
    rows = user_prompts(split, per_combination, context.seed)
    names = list(dict.fromkeys(subject for _, subject in rows))
    if 0 < subjects < len(names):
        names = [names[index] for index in np.linspace(0, len(names) - 1, subjects).round().astype(int)]
    return [
        EvaluationPrompt(text, unit=f"{subject}/{parse(text)['place']}", cluster=subject)
        for text, subject in rows
        if subject in names
    ]


def make_random(name: str, context: Context) -> PromptRefiner:
    """The kind `random-modifiers`."""
    return RandomRefiner(name)


def make_renderer(name: str, context: Context) -> Generator:
    """The kind `renderer`: images of the size that the readers expect."""
    return Renderer(size=judges(context).truth.reader.image_size)


@lru_cache(maxsize=2)
def judges(context: Context) -> Judges:
    """Return the judges of the checkpoint; they are loaded once."""
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


def agreement_on_renders(
    judge: Reward, user_prompts: Sequence[str], count: int, size: int, seed: int
) -> dict[str, Any]:
    """Compare a judge with the exact truth on `count` renders of known scenes, `size` pixels wide and high.

    The scenes show what the user prompts, in turn and with random modifiers, ask for.

    Returns:
        judge, n, correlation (None when judge or truth is constant) and mean_absolute_error.
    """
    asked = [user_prompts[index % len(user_prompts)] for index in range(count)]
    shown = RandomRefiner()(asked, list(range(count)))
    generators = [random_generator("agreement", seed, index) for index in range(count)]
    scenes = torch.tensor([sample_scene(parse(p), g) for p, g in zip(shown, generators, strict=True)])
    images = render(scenes, torch.tensor([sample_jitter(g) for g in generators]), size)
    parsed = [parse(prompt) for prompt in asked]
    subject, place = (
        torch.tensor([-1 if scene[factor] is None else scene[factor] for scene in parsed])
        for factor in ("subject", "place")
    )
    exact = scene_preference(subject, place, scenes).double().numpy()
    judged = judge(asked, images).double().numpy()
    error = float(np.abs(judged - exact).mean())
    return {"judge": judge.name, "n": count, "correlation": correlation(judged, exact), "mean_absolute_error": error}
