"""What reinforcement learning works with: loaded parts, user prompts, image seeds and the rewards' scales."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from prip.errors import CheckpointError, InputError, PripError
from prip.fingerprints import fingerprints
from prip.generators import load_generator
from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder, PromptDecoderConfig
from prip.processing import PripProcessor, load_tokenizer
from prip.protocols import Generator, Reward
from prip.rewards import load_reward

from ..data.reward_statistics import RewardStatistics
from ..data.splits import check_splits, read_prompts
from ..rollouts.image_scorer import ImageScorer
from ..runs.processes import process_rank
from ..runs.seeds import permutation_indices
from ..settings import RlSettings, RunSettings

_log = logging.getLogger(__name__)
STATISTICS_TIMEOUT_S = 3600
"""How long the other processes wait for the rewards' statistics"""
DEV_SEED = 900_000
"""First image seed on the dev split: training's lie below it, those of evaluation far above."""


@dataclass(frozen=True)
class RlParts:
    """What the stage works with, loaded."""

    model: PripModel
    """The warmed-up encoder, None for a decoder that reads no pivot, and the decoder."""
    processor: PripProcessor
    generator: Generator
    rewards: Sequence[Reward]
    train_prompts: Sequence[str]
    dev_prompts: Sequence[str]


def load_parts(settings: RlSettings) -> RlParts:
    """Loads the parts that the settings name; no encoder, where the decoder reads no pivot. Raises CheckpointError for
    one that is not there."""
    named, run_folder = settings.parts, settings.run
    encoder_folder, decoder_folder = part_folders(settings)
    needed = {"world": prompts_file(settings), "decoder": decoder_folder}
    has_pivot = not decoder_folder.exists() or PromptDecoderConfig.from_pretrained(decoder_folder).pivot_length > 0
    if has_pivot:
        needed["encoder"] = encoder_folder
    for stage, path in needed.items():
        if not path.exists():
            raise CheckpointError(f"{path} is missing: does prip-train {stage} come first?")
    prompts = read_prompts(prompts_file(settings), "user_prompt", 0, settings.seed)
    prompts = _refinable(prompts)
    train_prompts, dev_prompts = (prompts["prompt"][prompts["split"] == split].tolist() for split in ("train", "dev"))
    device = str(parts_device(settings))
    places = {name: "cpu" if name in settings.offload else device for name in ("generator", "rewards")}
    dtype = getattr(torch, named.dtype)
    options = named.generator_options if dtype is torch.float32 else {"dtype": dtype, **named.generator_options}
    dtypes = {name: None if name == settings.learns else dtype for name in ("encoder", "decoder")}
    encoder = PreferenceEncoder.from_pretrained(encoder_folder, dtype=dtypes["encoder"]) if has_pivot else None
    return RlParts(
        PripModel(encoder, PromptDecoder.from_pretrained(decoder_folder, dtype=dtypes["decoder"])),
        PripProcessor(load_tokenizer(encoder_folder) if has_pivot else None, load_tokenizer(decoder_folder)),
        load_generator(named.generator_place(run_folder), places["generator"], **options),
        [load_reward(name, places["rewards"], named.reward_dtype or dtype) for name in named.reward_places(run_folder)],
        train_prompts,
        dev_prompts,
    )


def _refinable(prompts: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows whose prompt can be refined: what people have typed may hold line breaks, or no word at all."""

    def is_refinable(prompt: str) -> bool:
        try:
            PripProcessor.check_user_prompt(prompt)
        except InputError:
            return False
        return True

    kept = prompts[prompts["prompt"].map(is_refinable)]
    if len(kept) < len(prompts):
        _log.warning("%d of %d user prompts cannot be refined and are left out", len(prompts) - len(kept), len(prompts))
    check_splits(kept, "user prompts that can be refined")
    return kept


def parts_device(settings: RunSettings) -> torch.device:
    """Returns where this process' generator, rewards and decoder work."""
    if settings.device == "cpu" or (settings.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def drawing_inputs(generator: Generator, rewards: Sequence[Reward]) -> dict[str, str]:
    """Returns what inputs.json says of a generator and of rewards: their weights, and how the generator samples."""
    parts: dict[str, object] = {"generator": generator, **{f"reward {reward.name}": reward for reward in rewards}}
    return {**fingerprints(parts), "sampling": getattr(generator, "sampling", "")}


def part_folders(settings: RlSettings) -> tuple[Path, Path]:
    """Returns the folders of the encoder and the decoder."""
    named, run_folder = settings.parts, settings.run
    return named.encoder or run_folder / "encoder" / "part", named.decoder or run_folder / "decoder" / "part"


def prompts_file(settings: RlSettings) -> Path:
    """Returns the file of the user prompts."""
    return settings.parts.user_prompts or settings.run / "parts" / "prompts" / "user_prompts.parquet"


def image_seed(user_prompt: str, place: int, seed_pool: int) -> int:
    """Returns the seed of an image in training: number `place` of the user prompt's pool."""
    base = int.from_bytes(hashlib.sha256(user_prompt.encode()).digest()[:8], "big") % (DEV_SEED // seed_pool)
    return base * seed_pool + place


def reward_statistics(parts: RlParts, settings: RlSettings, folder: Path, scorer: ImageScorer) -> RewardStatistics:
    """Returns the rewards' statistics: of this run, of the file that the settings name, or measured; and keeps them.

    Of several processes the first does so, and the others wait for what it keeps.
    """
    kept = folder / "reward_statistics.json"
    if process_rank():
        return _statistics_of_the_first(kept, scorer.names)
    given = settings.parts.statistics or settings.run / "data" / "rewards.json"
    statistics = RewardStatistics.read(kept, scorer.names) or RewardStatistics.read(given, scorer.names)
    if statistics is None and settings.parts.statistics is not None:
        raise CheckpointError(f"{given}: wanted the means and deviations of {', '.join(scorer.names)}")
    if statistics is None:
        prompts, pool = list(dict.fromkeys(parts.train_prompts)), settings.rollouts.seed_pool
        count = settings.rollouts.statistics_images
        order = permutation_indices(0, count, len(prompts), settings.seed, "rl", "statistics")
        seeds = [image_seed(prompts[place], number // len(prompts) % pool, pool) for number, place in enumerate(order)]
        owners = [prompts[place] for place in order]
        statistics = RewardStatistics.measure(scorer.score_plain(owners, seeds, "statistics"))
    statistics.write(kept)
    return statistics


def _statistics_of_the_first(kept: Path, names: Sequence[str]) -> RewardStatistics:
    """Returns the statistics that the first process keeps, as soon as it has."""
    until = time.monotonic() + STATISTICS_TIMEOUT_S
    while (statistics := RewardStatistics.read(kept, names)) is None:
        if time.monotonic() > until:
            raise PripError(f"{kept}: waited {STATISTICS_TIMEOUT_S} s for the first process to measure the rewards")
        time.sleep(0.2)
    return statistics
