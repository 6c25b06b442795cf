"""The parts of tuning: generator, rewards and their statistics, prompts and anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prip.errors import CheckpointError
from prip.files import replace_file
from prip.generators import load_generator
from prip.protocols import Generator, Reward
from prip.rewards import StandardisedSum, load_reward

from ..data.pairs import SYSTEM_PROMPTS
from ..data.reward_statistics import RewardStatistics
from ..data.splits import read_prompts
from ..rollouts.offloading import parts_device
from ..runs.seeds import derive_seed, permutation_indices
from ..settings import AnchorSettings, TuneSettings
from .diffusion import TunableDiffusion

STAGE = "tune"
_LATENTS = "latents"


@dataclass(frozen=True)
class TuneParts:
    """The loaded parts of the stage."""

    generator: Generator
    rewards: Sequence[Reward]
    user_prompts: dict[str, list[str]]
    """By split: train, dev"""
    system_prompts: list[str]
    """System prompts of the train split; empty unless the settings ask for them"""
    statistics: RewardStatistics

    @property
    def total(self) -> StandardisedSum:
        """The standardised sum of the rewards."""
        return StandardisedSum(self.rewards, self.statistics.means, self.statistics.deviations)

    def train_prompts(self, kind: Literal["user", "system"]) -> list[str]:
        """Return the prompts of the train split."""
        return self.user_prompts["train"] if kind == "user" else self.system_prompts


def load_tune_parts(settings: TuneSettings) -> TuneParts:
    """Load the parts that the settings name. Raise CheckpointError if one is missing."""
    parts, data = settings.run / "parts", settings.data or settings.run / "data"
    names = settings.reward_sources(settings.run)
    if not names:
        raise CheckpointError(f"{parts / 'rewards'} is missing: run `prip-train world` first")
    device = str(parts_device(settings))
    rewards = [load_reward(name, device, settings.reward_dtype) for name in names]
    path = settings.statistics or data / "rewards.json"
    statistics = RewardStatistics.read(path, [reward.name for reward in rewards])
    if statistics is None:
        missing = ", ".join(reward.name for reward in rewards)
        raise CheckpointError(f"{path}: no means and deviations of {missing}; run `prip-train prepare` first")
    table = settings.user_prompts or parts / "prompts" / "user_prompts.parquet"
    prompts = read_prompts(table, "user_prompt", 0, settings.seed)
    by_split = {split: prompts["prompt"][prompts["split"] == split].tolist() for split in ("train", "dev")}
    system: list[str] = []
    if "system" in (settings.pull.prompts, settings.anchor.prompts):
        table = read_prompts(data / SYSTEM_PROMPTS, "system_prompt", 0, settings.seed)
        system = table["prompt"][table["split"] == "train"].tolist()
    generator = load_generator(settings.generator_source(settings.run), device, **settings.generator_options)
    return TuneParts(generator, rewards, by_split, system, statistics)


def scored_for(prompts: Sequence[str], kind: Literal["user", "system"]) -> list[str]:
    """Return the user prompts for which the images of prompts are scored."""
    return list(prompts) if kind == "user" else [prompt.partition(",")[0].strip() for prompt in prompts]


@dataclass(frozen=True)
class Anchors:
    """Images drawn by the untuned generator: their prompts and clean latents, float32 (n, ...)."""

    prompts: list[str]
    latents: Tensor

    def __len__(self) -> int:
        return len(self.prompts)


def read_or_draw_anchors(
    tunable: TunableDiffusion, parts: TuneParts, settings: AnchorSettings, *, seed: int, batch_size: int, path: Path
) -> Anchors:
    """Return the anchors stored in `path`, or draw them with the generator and store them there."""
    prompts = parts.train_prompts(settings.prompts)
    indices = permutation_indices(0, settings.images, len(prompts), seed, STAGE, "anchors")
    chosen = [prompts[index] for index in indices]
    if path.is_file():
        return Anchors(chosen, load_file(path)[_LATENTS])
    seeds = [derive_seed(seed, STAGE, "anchor", number) for number in range(settings.images)]
    steps, starts = tunable.steps(), range(0, settings.images, batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    latents = torch.cat([tunable.draw(chosen[rows], seeds[rows], steps).latents.cpu() for rows in batches])
    replace_file(path, lambda temporary: save_file({_LATENTS: latents.contiguous()}, temporary))
    return Anchors(chosen, latents)
