"""PPO's mathematics against TRL 1.12's: tests/parity/trl/make_golden.py tells how it ran."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from prip.training.rl.ppo import generalized_advantages, masked_mean, policy_loss, value_loss, whiten

GOLDEN = Path(__file__).parent / "trl" / "golden.safetensors"


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_masked_mean_and_whitening(golden):
    close(masked_mean(golden["rewards"], golden["mask"]), golden["masked_mean"])
    close(whiten(golden["rewards"], golden["mask"]), golden["masked_whiten"])


def test_generalized_advantages(golden):
    discount, trace, _, _ = golden["settings"].tolist()
    mask = golden["mask"]
    advantages, returns = generalized_advantages(golden["rewards"], golden["values"], mask, discount, trace)
    close(advantages, golden["advantages"])
    close(returns, golden["returns"])
    junk = torch.where(mask, golden["values"], 1e6)
    close(generalized_advantages(golden["rewards"], junk, mask, discount, trace)[0], golden["advantages"])


def test_clipped_losses(golden):
    _, _, clip, value_clip = golden["settings"].tolist()
    mask, advantages = golden["mask"], golden["advantages"]
    close(policy_loss(golden["new"], golden["old"], advantages, mask, clip), golden["policy_loss"])
    close(value_loss(golden["new_values"], golden["values"], golden["returns"], mask, value_clip), golden["value_loss"])
    assert abs(policy_loss(golden["new"], golden["old"], advantages, mask, 1e9) - golden["policy_loss"]) > 1e-3
