"""The frozen parts that prepare uses, with their paths and hashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from prip.errors import CheckpointError, InputError
from prip.files import hash_of, hash_of_named
from prip.generators import load_generator
from prip.pivot_encoders import load_pivot_encoder
from prip.protocols import Generator, PivotEncoder, Reward
from prip.rewards import load_reward

from ..settings import PrepareSettings


@dataclass(frozen=True)
class Parts:
    """Loaders of the frozen parts, called where the parts are used; the generator is dropped after drawing."""

    make_generator: Callable[[], Generator]
    make_rewards: Callable[[], Sequence[Reward]]
    make_pivot_encoder: Callable[[], PivotEncoder]


def parts_of(settings: PrepareSettings) -> Parts:
    """Return the parts that the settings name. Without Ray, rewards and pivot encoder are loaded at once, so that they
    fail before anything is drawn. Raise CheckpointError for a missing part."""
    paths = part_paths(settings)
    rewards = [path for name, path in paths.items() if name.startswith("rewards/")]
    make_rewards = partial(load_rewards, rewards, settings.device, settings.dtype)
    make_pivot_encoder = partial(load_pivots, paths["pivot_encoder"], settings.device, settings.dtype)
    if not settings.ray.workers:
        loaded, pivot_encoder = make_rewards(), make_pivot_encoder()
        make_rewards, make_pivot_encoder = lambda: loaded, lambda: pivot_encoder  # type: ignore[assignment]
    return Parts(
        lambda: load_generator(paths["generator"], device=device_of(settings.device), **settings.generator_options),
        make_rewards,
        make_pivot_encoder,
    )


def device_of(device: str) -> str:
    """Return `device`, or for "auto" cuda if there is a GPU and else cpu."""
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def load_rewards(names: Sequence[str], device: str, dtype: str | None) -> list[Reward]:
    """Load the rewards `names`, frozen."""
    return [load_reward(name, device=device_of(device), **_dtype(dtype)) for name in names]


def load_pivots(name: str, device: str, dtype: str | None) -> PivotEncoder:
    """Load the pivot encoder `name`, frozen."""
    return load_pivot_encoder(name, device=device_of(device), **_dtype(dtype))


def _dtype(dtype: str | None) -> dict[str, Any]:
    return {} if dtype is None else {"dtype": getattr(torch, dtype)}


def part_paths(settings: PrepareSettings) -> dict[str, str]:
    """Return the paths of what the stage reads: tables of prompts, generator, rewards/NAME, pivot encoder.

    Raise CheckpointError if one is missing in the run, and InputError if two rewards share a name.
    """
    parts = settings.run / "parts"
    rewards = settings.reward_sources(settings.run)
    paths = {f"rewards/{_short(reward)}": reward for reward in rewards}
    if len(paths) < len(rewards):
        raise InputError(f"rewards: expected different names, got {', '.join(rewards)}")
    if settings.diffusiondb is None:
        paths["user_prompts"] = str(settings.user_prompts or parts / "prompts" / "user_prompts.parquet")
        paths["system_prompts"] = str(settings.system_prompts or parts / "prompts" / "system_prompts.parquet")
        paths["generator"] = settings.generator_source(settings.run)
    paths["pivot_encoder"] = settings.pivot_encoder or str(parts / "pivot_encoder")
    missing = [] if rewards else [str(parts / "rewards")]
    missing += [path for path in paths.values() if Path(path).is_relative_to(parts) and not Path(path).exists()]
    if missing:
        raise CheckpointError(f"run: {', '.join(missing)} missing; run prip-train world first")
    return paths


def _short(reward: str) -> str:
    """Return NAME of NAME=PLACE, or the last part of a path."""
    return Path(reward).name if Path(reward).exists() else Path(reward.partition("=")[0]).name


def input_hashes(settings: PrepareSettings) -> dict[str, str]:
    """Return the hashes of the inputs by name; inputs on the Hub give name and commit, a DiffusionDB its path."""
    hashes = {name: hash_of_named(path) for name, path in part_paths(settings).items()}
    if settings.diffusiondb is not None:
        hashes["diffusiondb"] = str(settings.diffusiondb)
    return hashes | {f"evaluation/{Path(file).name}": hash_of(file) for file in settings.evaluation.files}
