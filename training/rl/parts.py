"""The parts of reinforcement learning: models, generator, rewards, user prompts and the statistics of the rewards."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from prip.errors import CheckpointError, InputError, PripError
from prip.generators import load_generator
from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder, PromptDecoderConfig
from prip.processing import PripProcessor, load_tokenizer
from prip.protocols import Generator, Reward
from prip.rewards import load_reward

from ..data.reward_statistics import RewardStatistics
from ..data.splits import check_splits, read_prompts
from ..rollouts.image_scorer import ImageScorer
from ..rollouts.offloading import parts_device
from ..runs.processes import process_rank
from ..runs.seeds import image_seed, permutation_indices
from ..settings import RlSettings

_log = logging.getLogger(__name__)
STATISTICS_TIMEOUT_S = 3600
"""How long the other processes wait for the first to provide the statistics of the rewards"""


@dataclass(frozen=True, kw_only=True)
class RlParts:
    """The loaded parts of the stage."""

    model: PripModel
    """The warmed-up preference encoder (None for a decoder that reads no pivot) and the prompt decoder."""
    processor: PripProcessor
    generator: Generator
    rewards: Sequence[Reward]
    train_prompts: Sequence[str]
    dev_prompts: Sequence[str]


def load_parts(settings: RlSettings) -> RlParts:
    """Load the parts that the settings name, without an encoder for a decoder that reads no pivot.

    Raise CheckpointError if a part is missing.
    """
    chosen, run = settings.parts, settings.run
    # A decoder without a config is assumed to need an encoder, so that both are reported as missing.
    encoder_folder, decoder_folder = part_folders(settings)
    has_pivot = not decoder_folder.exists() or PromptDecoderConfig.from_pretrained(decoder_folder).pivot_length > 0
    needed = {"world": prompts_file(settings), "decoder": decoder_folder}
    if has_pivot:
        needed["encoder"] = encoder_folder
    for stage, path in needed.items():
        if not path.exists():
            raise CheckpointError(f"{path} is missing: run `prip-train {stage}` first")
    prompts = _refinable(read_prompts(prompts_file(settings), "user_prompt", 0, settings.seed))
    by_split = {split: prompts["prompt"][prompts["split"] == split].tolist() for split in ("train", "dev")}
    # Offloaded parts are loaded on the CPU. The learner keeps its own dtype; everything else is loaded in `dtype`.
    device = str(parts_device(settings))
    devices = {name: "cpu" if name in settings.offload else device for name in ("generator", "rewards")}
    dtype = getattr(torch, chosen.dtype)
    options = chosen.generator_options if dtype is torch.float32 else {"dtype": dtype, **chosen.generator_options}
    dtypes = {name: None if name == settings.learns else dtype for name in ("encoder", "decoder")}
    encoder = PreferenceEncoder.from_pretrained(encoder_folder, dtype=dtypes["encoder"]) if has_pivot else None
    encoder_tokenizer = load_tokenizer(encoder_folder) if has_pivot else None
    return RlParts(
        model=PripModel(encoder, PromptDecoder.from_pretrained(decoder_folder, dtype=dtypes["decoder"])),
        processor=PripProcessor(encoder_tokenizer, load_tokenizer(decoder_folder)),
        generator=load_generator(chosen.generator_source(run), devices["generator"], **options),
        rewards=[
            load_reward(name, devices["rewards"], chosen.reward_dtype or dtype) for name in chosen.reward_sources(run)
        ],
        train_prompts=by_split["train"],
        dev_prompts=by_split["dev"],
    )


def _refinable(prompts: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose prompt can be refined; prompts from logs may hold line breaks, or no word at all."""

    def is_refinable(prompt: str) -> bool:
        try:
            PripProcessor.check_user_prompt(prompt)
        except InputError:
            return False
        return True

    kept = prompts[prompts["prompt"].map(is_refinable)]
    if len(kept) < len(prompts):
        _log.warning("leaving out %d of %d user prompts that cannot be refined", len(prompts) - len(kept), len(prompts))
    check_splits(kept, "user prompts that can be refined")
    return kept


def part_folders(settings: RlSettings) -> tuple[Path, Path]:
    """Return the folders of the encoder and the decoder."""
    chosen, run = settings.parts, settings.run
    return chosen.encoder or run / "encoder" / "part", chosen.decoder or run / "decoder" / "part"


def prompts_file(settings: RlSettings) -> Path:
    """Return the file of the user prompts."""
    return settings.parts.user_prompts or settings.run / "parts" / "prompts" / "user_prompts.parquet"


def reward_statistics(parts: RlParts, settings: RlSettings, folder: Path, scorer: ImageScorer) -> RewardStatistics:
    """Return the statistics of the rewards and store them in the stage's folder.

    They come from this run, else from the file that the settings name, else from images of user prompts. The first
    process provides them, the others wait for its file.
    """
    stored = folder / "reward_statistics.json"
    if process_rank():
        return _statistics_of_the_first(stored, scorer.names)
    path = settings.parts.statistics or settings.run / "data" / "rewards.json"
    statistics = RewardStatistics.read(stored, scorer.names) or RewardStatistics.read(path, scorer.names)
    if statistics is None and settings.parts.statistics is not None:
        raise CheckpointError(f"{path}: expected the means and deviations of {', '.join(scorer.names)}")
    if statistics is None:
        prompts, pool = list(dict.fromkeys(parts.train_prompts)), settings.rollouts.seed_pool
        count = settings.rollouts.statistics_images
        order = permutation_indices(0, count, len(prompts), settings.seed, "rl", "statistics")
        seeds = [image_seed(prompts[index], number // len(prompts) % pool, pool) for number, index in enumerate(order)]
        user_prompts = [prompts[index] for index in order]
        plain = scorer.score_plain(user_prompts, seeds, "statistics")
        statistics = RewardStatistics.measure({name: values[~plain.blackened] for name, values in plain.items()})
    statistics.write(stored)
    return statistics


def _statistics_of_the_first(stored: Path, names: Sequence[str]) -> RewardStatistics:
    deadline = time.monotonic() + STATISTICS_TIMEOUT_S
    while (statistics := RewardStatistics.read(stored, names)) is None:
        if time.monotonic() > deadline:
            raise PripError(f"{stored}: waited {STATISTICS_TIMEOUT_S} s for the first process to measure the rewards")
        time.sleep(0.2)
    return statistics
