"""Rewards: images and user prompts to scores, higher is better."""

from __future__ import annotations

from pathlib import Path

from ..protocols import Reward
from .standardised import StandardisedSum

__all__ = ["StandardisedSum", "load_reward"]


def load_reward(name_or_path: str | Path, device: str | None = None) -> Reward:
    """Loads a reward from a folder or the Hub. Raises CheckpointError where there is none that PRIP can read."""
    import torch

    from .prompt_reward import PromptReward

    reward = PromptReward.from_pretrained(name_or_path).eval()
    torch.nn.Module.to(reward, device or "cpu")
    return reward.requires_grad_(False)
