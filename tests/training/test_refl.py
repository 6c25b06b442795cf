"""The formulas of reward feedback learning, against numbers worked by hand and against diffusers' samplers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from prip.training.tune.refl import PREDICTIONS, clean_latents, guided, network_target, noisy_latents, pull_loss


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_noise_by_hand() -> None:
    clean, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 10.0)
    kept = torch.tensor([0.36])  # roots: 0.6 and 0.8
    assert noisy_latents(clean, noise, kept).item() == pytest.approx(0.6 * 2 + 0.8 * 10)
    targets = {kind: network_target(kind, clean, noise, kept).item() for kind in PREDICTIONS}
    assert targets == pytest.approx({"epsilon": 10.0, "sample": 2.0, "v_prediction": 0.6 * 10 - 0.8 * 2})


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_network_that_predicts_its_target_sees_the_clean_latents(kind: str) -> None:
    clean, noise, kept = draw(3, 2, 4, 4, seed=0), draw(3, 2, 4, 4, seed=1), torch.tensor([0.9, 0.5, 0.01])
    noisy = noisy_latents(clean, noise, kept)
    found = clean_latents(kind, network_target(kind, clean, noise, kept), noisy, kept)
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_clean_latents_are_those_of_diffusers(kind: str) -> None:
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    scheduler.set_timesteps(10)
    noisy, prediction = draw(2, 2, 4, 4, seed=0), draw(2, 2, 4, 4, seed=1)
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(prediction, timestep, noisy).pred_original_sample
        ours = clean_latents(kind, prediction, noisy, scheduler.alphas_cumprod[timestep])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_rewards_above_the_cap_pull_no_more() -> None:
    rewards = torch.tensor([-1.0, 1.5, 3.0], requires_grad=True)
    loss = pull_loss(rewards, 2.0)
    loss.backward()
    assert loss.item() == pytest.approx((3.0 + 0.5 + 0.0) / 3)
    assert rewards.grad.tolist() == pytest.approx([-1 / 3, -1 / 3, 0.0])


def test_guidance_by_hand() -> None:
    assert guided(torch.tensor(1.0), torch.tensor(3.0), 2.5).item() == 6.0
