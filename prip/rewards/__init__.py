"""Rewards: score images for user prompts; higher is better."""

from __future__ import annotations

from .registry import REWARDS, RewardReference, load_reward, parse_reward, pinned_reward
from .standardised import StandardisedSum, standardised_sum

__all__ = [
    "REWARDS",
    "RewardReference",
    "StandardisedSum",
    "load_reward",
    "parse_reward",
    "pinned_reward",
    "standardised_sum",
]
