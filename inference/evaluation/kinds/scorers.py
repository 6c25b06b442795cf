"""Scorers by their place: any reward that PRIP can load."""

from __future__ import annotations

from prip.errors import InputError
from prip.protocols import Reward
from prip.rewards import load_reward

from ...checkpoint_parts import existing
from .registry import Context


def make_reward(name: str, context: Context, *, place: str | None = None, dtype: str | None = None) -> Reward:
    """The kind `reward`. place: what `prip.rewards.load_reward` reads, such as hps-v2.1 or image-reward@REVISION; None
    is the checkpoint's reward of that name. dtype: of its networks, None is float32.

    Raises InputError where the checkpoint has no such reward.
    """
    if place is None:
        folder = existing(context.parts.rewards) / name
        if not folder.is_dir():
            known = ", ".join(sorted(one.name for one in context.parts.rewards.iterdir())) or "none"
            raise InputError(f"scorer {name!r}: the checkpoint has no such reward, of {known}: say its place")
        place = str(folder)
    return load_reward(place, context.device, dtype)
