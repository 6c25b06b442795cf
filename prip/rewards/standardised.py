"""The sum of several rewards, each brought to its deviation on unrefined images first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..protocols import Images, Reward


class StandardisedSum:
    """Mean over rewards of (score - mean) / deviation: scales that differ by a hundred count the same."""

    name = "standardised_sum"

    def __init__(self, rewards: Sequence[Reward], means: Mapping[str, float], deviations: Mapping[str, float]) -> None:
        """means, deviations: by the rewards' names, measured on unrefined images."""
        for reward in rewards:
            if reward.name not in means or not deviations.get(reward.name, 0) > 0:
                raise InputError(f"means, deviations: wanted a mean and a positive deviation of {reward.name!r}")
        self.rewards = list(rewards)
        self.means = dict(means)
        self.deviations = dict(deviations)

    def parts(self, user_prompts: Sequence[str], images: Images) -> dict[str, Tensor]:
        """Raw scores by reward, each float32 (n,)."""
        return {reward.name: reward(user_prompts, images) for reward in self.rewards}

    def combine(self, parts: Mapping[str, Tensor]) -> Tensor:
        """What `parts` returned, standardised and averaged: float32 (n,)."""
        terms = [(parts[r.name] - self.means[r.name]) / self.deviations[r.name] for r in self.rewards]
        return torch.stack(terms).mean(0)

    def __call__(self, user_prompts: Sequence[str], images: Images) -> Tensor:
        """Scores, float32 (n,)."""
        return self.combine(self.parts(user_prompts, images))
