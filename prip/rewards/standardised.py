"""The sum of several rewards, each brought to its deviation on unrefined images first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..protocols import DifferentiableReward, Images, Reward


def standardised_sum(
    scores: Mapping[str, Tensor], names: Sequence[str], means: Mapping[str, float], deviations: Mapping[str, float]
) -> Tensor:
    """Mean over the rewards `names` of (score - mean) / deviation. scores: raw ones by reward, each (n,)."""
    return torch.stack([(scores[name] - means[name]) / deviations[name] for name in names]).mean(0)


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
        return standardised_sum(parts, [reward.name for reward in self.rewards], self.means, self.deviations)

    def scores_with_gradient(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores, float32 (n,) on the images' device, differentiable by float images in 0..255.

        Raises InputError as check_differentiable does.
        """
        rewards = self.check_differentiable()
        return self.combine({one.name: one.scores_with_gradient(user_prompts, images).to(images) for one in rewards})

    def check_differentiable(self) -> list[DifferentiableReward]:
        """Returns the rewards. Raises InputError for one that cannot tell how its score changes with the image."""
        found: list[DifferentiableReward] = []
        for reward in self.rewards:
            if not isinstance(reward, DifferentiableReward):
                raise InputError(
                    "rewards: wanted ones that tell how their score changes with the image (scores_with_gradient), "
                    f"{reward.name!r} does not"
                )
            found.append(reward)
        return found

    def __call__(self, user_prompts: Sequence[str], images: Images) -> Tensor:
        """Scores, float32 (n,)."""
        return self.combine(self.parts(user_prompts, images))
