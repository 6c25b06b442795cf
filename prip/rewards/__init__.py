"""Rewards: images and user prompts to scores, higher is better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..protocols import Reward
from .standardised import StandardisedSum

if TYPE_CHECKING:
    import torch

__all__ = ["StandardisedSum", "load_reward"]


def load_reward(name_or_path: str | Path, device: str | None = None, dtype: torch.dtype | None = None) -> Reward:
    """Loads a reward from a folder or the Hub, in float32 unless `dtype` says otherwise.

    Raises CheckpointError where there is none that PRIP can read.
    """
    import torch

    from .prompt_reward import PromptReward

    reward = PromptReward.from_pretrained(name_or_path).eval()
    torch.nn.Module.to(reward, device or "cpu", dtype or torch.float32)
    return reward.requires_grad_(False)
