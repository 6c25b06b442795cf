"""Rewards of float images: near those of whole pixels, and with the gradient that finite differences have."""

from __future__ import annotations

import pytest
import torch
from tiny_parts import build_tokenizer
from tiny_rewards import NAMES, tiny_reward

from prip.errors import InputError
from prip.protocols import DifferentiableReward
from prip.rewards import StandardisedSum
from prip.rewards.preprocessing import resize
from prip.rewards.prompt_reward import PromptReward, PromptRewardConfig

USERS = ["a cat in town", "one robot", "a castle among dunes"]
KINDS = (*NAMES, "reward")


def make_reward(name: str):
    if name != "reward":
        return tiny_reward(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = PromptRewardConfig(trunk_width=32, width=16, grid=16, score_mean=2.0, score_deviation=3.0)
        reward = PromptReward(config).eval()
    reward.tokenizer = build_tokenizer(USERS)
    return reward


def make_images(name: str) -> torch.Tensor:
    """Smooth images, so that few resized values leave 0..255: uint8 (3, 3, height, width)."""
    size = (32, 32) if name == "reward" else (40, 52)
    coarse = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 235 + 10
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=True)
    return smooth.round().to(torch.uint8)


@pytest.mark.parametrize("name", KINDS)
def test_float_images_score_as_whole_pixels_do(name):
    reward, images = make_reward(name), make_images(name)
    assert isinstance(reward, DifferentiableReward)
    scores = reward(USERS, images)
    found = reward.scores_with_gradient(USERS, images.float())
    assert found.shape == (3,) and found.dtype == torch.float32
    exact = name in ("reward", "hps-v2.0", "hps-v2.1")
    torch.testing.assert_close(found.detach(), scores, rtol=1e-5 if exact else 0.01, atol=1e-5 if exact else 0.01)
    for foreign in (images, images.float()[:2]):
        with pytest.raises(InputError, match=r"images: expected (floats|one for each of 3 user prompts)"):
            reward.scores_with_gradient(USERS, foreign)


@pytest.mark.parametrize("name", KINDS)
def test_the_gradient_is_that_of_finite_differences(name):
    reward = make_reward(name)
    images = make_images(name).float().requires_grad_(True)
    (gradient,) = torch.autograd.grad(reward.scores_with_gradient(USERS, images).sum(), images)
    assert gradient.flatten(1).norm(dim=1).min() > 0
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    for direction in (gradient / gradient.abs().max(), noise * gradient.sign().clamp(min=0)):
        with torch.no_grad():
            ends = [reward.scores_with_gradient(USERS, images + step * direction).double() for step in (0.5, -0.5)]
        expected = (gradient * direction).flatten(1).sum(1).double()
        torch.testing.assert_close(ends[0] - ends[1], expected, rtol=0.03, atol=float(expected.abs().max()) * 0.03)


@pytest.mark.parametrize(("height", "width"), [(32, 40), (17, 90), (70, 33), (40, 52)])
def test_resized_floats_are_within_a_rounding_of_pillow(height, width):
    images = torch.randint(0, 256, (2, 3, 40, 52), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    apart = (resize(images.float(), height, width) - resize(images, height, width).float()).abs()
    assert apart.max() <= 1.5 and (apart.max() > 0 or (height, width) == (40, 52))


def test_the_sum_adds_up_gradients_and_names_a_reward_without():
    rewards = [make_reward("hps-v2.0"), make_reward("clip-score")]
    means, deviations = {"hps-v2.0": 1.0, "clip-score": 0.2}, {"hps-v2.0": 5.0, "clip-score": 0.1}
    total, images = StandardisedSum(rewards, means, deviations), make_images("hps-v2.0").float().requires_grad_(True)
    (found,) = torch.autograd.grad(total.scores_with_gradient(USERS, images).sum(), images)
    parts = [torch.autograd.grad(one.scores_with_gradient(USERS, images).sum(), images)[0] for one in rewards]
    torch.testing.assert_close(found, (parts[0] / 5 + parts[1] / 0.1) / 2)

    class Plain:
        name = "plain"

    with pytest.raises(InputError, match=r"rewards: expected differentiable ones .*, got 'plain'"):
        StandardisedSum([Plain()], {"plain": 0.0}, {"plain": 1.0}).scores_with_gradient(USERS, images)
