"""Several rewards as one: each is standardised on unrefined images, then they are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError
from ..protocols import DifferentiableReward, Images, Reward


def standardised_sum(
    scores: Mapping[str, Tensor], names: Sequence[str], means: Mapping[str, float], deviations: Mapping[str, float]
) -> Tensor:
    """Return the mean over the rewards `names` of (score - mean) / deviation, from raw scores `(n,)` by reward."""
    return torch.stack([(scores[name] - means[name]) / deviations[name] for name in names]).mean(0)


class StandardisedSum:
    """A `Reward`: the mean over several of (score - mean) / deviation, so that their scales do not matter."""

    name = "standardised_sum"

    def __init__(self, rewards: Sequence[Reward], means: Mapping[str, float], deviations: Mapping[str, float]) -> None:
        """Combine rewards.

        Args:
            rewards: What is combined.
            means: Mean score on unrefined images, by reward name.
            deviations: Standard deviation of the scores on unrefined images, by reward name.

        Raises:
            InputError: If a reward has no mean or no positive deviation.
        """
        for reward in rewards:
            if reward.name not in means or not deviations.get(reward.name, 0) > 0:
                raise InputError(f"means, deviations: expected a mean and a positive deviation of {reward.name!r}")
        self.rewards = list(rewards)
        self.means = dict(means)
        self.deviations = dict(deviations)

    def parts(self, user_prompts: Sequence[str], images: Images) -> dict[str, Tensor]:
        """Return the raw scores by reward, each float32 `(n,)`."""
        return {reward.name: reward(user_prompts, images) for reward in self.rewards}

    def combine(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Standardise and average what `parts` returned; float32 `(n,)`."""
        return standardised_sum(parts, [reward.name for reward in self.rewards], self.means, self.deviations)

    def scores_with_gradient(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return scores, float32 `(n,)` on the images' device, differentiable with respect to floats in 0..255.

        Raises:
            InputError: If a reward is not differentiable.
        """
        rewards = self.check_differentiable()
        return self.combine({each.name: each.scores_with_gradient(user_prompts, images).to(images) for each in rewards})

    def check_differentiable(self) -> list[DifferentiableReward]:
        """Return the rewards; raise InputError if one has no `scores_with_gradient`."""
        for reward in self.rewards:
            if not isinstance(reward, DifferentiableReward):
                raise InputError(f"rewards: expected differentiable ones (scores_with_gradient), got {reward.name!r}")
        return [reward for reward in self.rewards if isinstance(reward, DifferentiableReward)]

    def __call__(self, user_prompts: Sequence[str], images: Images) -> Tensor:
        """Return scores, float32 `(n,)` on the CPU."""
        return self.combine(self.parts(user_prompts, images))
