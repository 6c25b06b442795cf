"""How far the miniature's judge `truth` agrees with the exact truth, on images whose scene is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from prip.miniature.preference import scene_preference
from prip.miniature.renderer import render, sample_jitter
from prip.miniature.scene import parse, sample_scene
from prip.protocols import Reward
from prip.randomness import random_generator

from ..kinds.miniature import RandomRefiner
from .statistics import correlation


def agreement_on_renders(
    judge: Reward, user_prompts: Sequence[str], count: int, size: int, seed: int
) -> dict[str, Any]:
    """Compares the judge with the exact truth on `count` renders of known scenes, of `size` pixels a side.

    The scenes show what a user prompt with random modifiers asks for. Returns judge, n, correlation (None where one of
    the two is constant) and mean_absolute_error.
    """
    asked_for = [user_prompts[place % len(user_prompts)] for place in range(count)]
    shown = RandomRefiner()(asked_for, list(range(count)))
    generators = [random_generator("agreement", seed, place) for place in range(count)]
    scenes = torch.tensor([sample_scene(parse(p), g) for p, g in zip(shown, generators, strict=True)])
    images = render(scenes, torch.tensor([sample_jitter(g) for g in generators]), size)
    asked = [parse(prompt) for prompt in asked_for]
    subject, place = (
        torch.tensor([-1 if one[factor] is None else one[factor] for one in asked]) for factor in ("subject", "place")
    )
    exact = scene_preference(subject, place, scenes).double().numpy()
    seen = judge(asked_for, images).double().numpy()
    error = float(np.abs(seen - exact).mean())
    return {"judge": judge.name, "n": count, "correlation": correlation(seen, exact), "mean_absolute_error": error}
