"""Preferred images and system prompts, chosen by the scores of all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prip.errors import InputError
from prip.files import replace_file
from prip.rewards import standardised_sum

from ..runs.seeds import derive_seed
from ..settings import PrepareSettings
from .pairs import PREFERRED_IMAGES, SYSTEM_PROMPTS
from .reward_statistics import RewardStatistics
from .splits import check_splits, limit_prompts, split_by_series

REWARDS = "rewards.json"


@dataclass(frozen=True)
class Mined:
    """Images and prompts chosen by the scores.

    user, system: images by origin, with split and score (the standardised sum that ranks them).
    """

    user: pd.DataFrame
    system: pd.DataFrame
    preferred: pd.DataFrame
    kept: pd.DataFrame
    rewards: RewardStatistics

    @property
    def needed(self) -> list[str]:
        """Names of the images whose pivots the warm-ups read."""
        names = [self.preferred["image_name"], self.preferred["random_image_name"], self.kept["image_name"]]
        return pd.unique(pd.concat(names)).tolist()


def check_reward_names(settings: PrepareSettings, names: Sequence[str]) -> None:
    """Raise InputError if the settings name a reward that is not in `names`."""
    named: Mapping[str, Sequence[str]] = {
        "preferred_by": settings.preferred_by,
        "system.ranked_by": settings.system.ranked_by,
        "system.thresholds": list(settings.system.thresholds),
    }
    for setting, rewards in named.items():
        unknown = sorted(set(rewards) - set(names))
        if unknown:
            raise InputError(f"{setting}: expected names among {', '.join(names)}, got {', '.join(unknown)}")


def mine(settings: PrepareSettings, images: pd.DataFrame, prompts: pd.DataFrame | None, names: Sequence[str]) -> Mined:
    """Choose preferred images and system prompts, and write their tables and the statistics of the rewards.

    `images` has image_name, prompt, and raw scores in the columns `names`; `prompts` is the table of drawn prompts, or
    None for a DiffusionDB.
    """
    data = settings.run / "data"
    user, system = _by_origin(images, prompts, settings.dev_share)
    statistics = RewardStatistics.measure(_tensors(user, names))
    chosen_by, ranked_by = settings.preferred_by or names, settings.system.ranked_by or names
    user = user.assign(score=_standardised_sum(user, chosen_by, statistics))
    system = system.assign(score=_standardised_sum(system, ranked_by, statistics))
    preferred = mine_preferred(user, settings.preferred_per_prompt, settings.seed)
    kept = filter_system_prompts(system, settings.system.keep_share, settings.system.thresholds)
    if prompts is None:
        preferred = limit_prompts(preferred, "user_prompt", settings.user_prompt_limit, settings.seed)
        kept = limit_prompts(kept, "system_prompt", settings.system_prompt_limit, settings.seed)
    check_splits(preferred, "preferred images")
    check_splits(kept, "kept system prompts")
    statistics.write(data / REWARDS)
    write_table(data / PREFERRED_IMAGES, preferred)
    write_table(data / SYSTEM_PROMPTS, kept)
    return Mined(user, system, preferred, kept, statistics)


def mine_preferred(images: pd.DataFrame, per_prompt: int, seed: int) -> pd.DataFrame:
    """Return the preferred images of each user prompt (Eq. 6's i*), sorted by prompt and then best first.

    Args:
        images: prompt, image_name, score, split. Prompts with a single image are dropped.
        per_prompt: maximum number of rows per prompt.
        seed: seed of the random images.

    Returns:
        user_prompt, image_name, random_image_name, split. The random images are sampled without replacement from the
        prompt's images, as a function of the seed and their names.
    """
    counts = images.groupby("prompt")["image_name"].transform("size")
    frame = images[counts >= 2]
    chance = [derive_seed(seed, "random image", name) for name in frame["image_name"]]
    frame = frame.assign(chance=pd.Series(chance, index=frame.index, dtype="uint64"))
    best = _first(frame, ["score", "image_name"], [False, True], per_prompt)
    random = _first(frame, ["chance", "image_name"], [True, True], per_prompt)
    return pd.DataFrame(
        {
            "user_prompt": best["prompt"].to_numpy(),
            "image_name": best["image_name"].to_numpy(),
            "random_image_name": random["image_name"].to_numpy(),
            "split": best["split"].to_numpy(),
        }
    )


def _first(frame: pd.DataFrame, by: list[str], ascending: list[bool], count: int) -> pd.DataFrame:
    """Return the first `count` rows of each prompt in this order, sorted by prompt."""
    ordered = frame.sort_values(["prompt", *by], ascending=[True, *ascending])
    return ordered[ordered.groupby("prompt").cumcount() < count]


def filter_system_prompts(images: pd.DataFrame, keep_share: float, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Return the system prompts to learn from, each with its best image, sorted by prompt.

    Args:
        images: prompt, image_name, score, split, and raw scores in a column for each reward in `thresholds`.
        keep_share: share of the prompts of each split that is kept, by the score of their best image.
        thresholds: raw scores that an image must exceed, by reward.

    Returns:
        system_prompt, image_name, split.

    Raises:
        InputError: if a threshold names a reward that was not measured.
    """
    unknown = sorted(set(thresholds) - set(images.columns))
    if unknown:
        raise InputError(f"thresholds: expected names of rewards in use, got {', '.join(unknown)}")
    for name, threshold in thresholds.items():
        images = images[images[name] > threshold]
    ordered = images.sort_values(["prompt", "score", "image_name"], ascending=[True, False, True])
    best = ordered.drop_duplicates("prompt")
    least = best.groupby("split")["score"].transform(lambda scores: scores.quantile(1 - keep_share))
    chosen = best[best["score"] >= least]
    return chosen[["prompt", "image_name", "split"]].rename(columns={"prompt": "system_prompt"}).reset_index(drop=True)


def _tensors(images: pd.DataFrame, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the raw scores in the columns `names`, each float32 (n,)."""
    return {name: torch.from_numpy(images[name].to_numpy(np.float32, copy=True)) for name in names}


def _standardised_sum(images: pd.DataFrame, names: Sequence[str], statistics: RewardStatistics) -> np.ndarray:
    """Return the standardised sum of the raw scores in the columns `names`: float32 (n,)."""
    return standardised_sum(_tensors(images, names), names, statistics.means, statistics.deviations).numpy()


def _by_origin(
    images: pd.DataFrame, prompts: pd.DataFrame | None, dev_share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the images of user prompts and of system prompts, with their split from `prompts`.

    Without `prompts`, every prompt is a system prompt, those with several images are also user prompts, and dev_share
    of the prompts are dev.
    """
    if prompts is None:
        system = images.assign(split=split_by_series(images["prompt"], dev_share))
        return system[system.groupby("prompt")["image_name"].transform("size") >= 2], system
    described = prompts[["image_name", "origin", "split"]]
    joined = images.merge(described, on="image_name", how="inner", validate="one_to_many")
    return joined[joined["origin"] == "user"], joined[joined["origin"] == "system"]


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as parquet, atomically."""
    replace_file(path, lambda temporary: frame.to_parquet(temporary, index=False))
