"""The formulas of reward feedback learning (ReFL: Xu et al., ImageReward, 2023, Algorithm 1) as pure functions.

Notation: x_0 clean latents, x_t = sqrt(a) x_0 + sqrt(1 - a) e noisy ones, a the share of the signal's variance left at
a timestep (alphas_cumprod), e the noise. A network predicts e ("epsilon"), x_0 ("sample") or
v = sqrt(a) e - sqrt(1 - a) x_0 ("v_prediction"). Latents are (n, channels, height, width), a is (n,) or one number.
"""

from __future__ import annotations

import torch
from torch import Tensor

PREDICTIONS = ("epsilon", "sample", "v_prediction")
"""What a network can predict."""


def noisy_latents(clean: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """Return x_t for x_0 and e; kept: a."""
    signal, rest = _roots(clean, kept)
    return signal * clean + rest * noise


def network_target(kind: str, clean: Tensor, noise: Tensor, kept: Tensor) -> Tensor:
    """Return the target for x_t of a network that predicts `kind`, one of PREDICTIONS."""
    signal, rest = _roots(clean, kept)
    return {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - rest * clean}[kind]


def clean_latents(kind: str, prediction: Tensor, noisy: Tensor, kept: Tensor) -> Tensor:
    """Return the x_0 implied by the prediction for x_t of a network that predicts `kind`, one of PREDICTIONS."""
    signal, rest = _roots(noisy, kept)
    if kind == "sample":
        return prediction
    if kind == "epsilon":
        return (noisy - rest * prediction) / signal
    return signal * noisy - rest * prediction


def guided(without_prompt: Tensor, with_prompt: Tensor, guidance: float) -> Tensor:
    """Return the classifier-free guidance of two predictions."""
    return without_prompt + guidance * (with_prompt - without_prompt)


def pull_loss(rewards: Tensor, cap: float) -> Tensor:
    """Return the mean shortfall of the rewards (n,) below the cap: phi in Algorithm 1.

    Its gradient is that of the negative mean reward, without the rewards above the cap.
    """
    return torch.relu(cap - rewards).mean()


def _roots(latents: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return the roots of a and of 1 - a, shaped to broadcast over the latents."""
    kept = kept.to(latents.device, torch.float32).reshape(-1, *[1] * (latents.dim() - 1))
    return kept.sqrt(), (1 - kept).sqrt()
