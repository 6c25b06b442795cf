"""`prip-train rewrites`: pairs of a user prompt and a system prompt that continues it, for the paper's baselines.

They are synthetic, or mined from the sessions of a log.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from prip.errors import CheckpointError
from prip.files import hash_of, hash_of_named
from prip.generators import load_generator
from prip.rewards import StandardisedSum

from ..data.evaluation_sets import occurring_in_files
from ..data.mining import REWARDS, write_table
from ..data.pairs import SYSTEM_PROMPTS
from ..data.reward_statistics import RewardStatistics
from ..data.rewrites import REWRITES, rewrites_of_sessions
from ..data.sessions import find_sessions, read_log
from ..data.splits import check_splits, limit_prompts, read_prompts, split_by_series
from ..rollouts.image_scorer import ImageScorer, PlainScoreCache
from ..runs.pinned_settings import pin_rewrites
from ..runs.run_folder import finished_metrics, stage_folder, write_metrics
from ..settings import RewritesSettings
from .parts import device_of, load_rewards
from .synthetic import Job, from_starts, from_table, gains, image_seeds, known_scores

STAGE = "rewrites"
TABLE, LEFT_OUT = "rewrites.parquet", "left_out.parquet"
_log = logging.getLogger(__name__)


def run(settings: RewritesSettings) -> dict[str, Any]:
    """Make RUN/rewrites, and return its metrics.

    It has rewrites.parquet (user_prompt, system_prompt, split), left_out.parquet (user_prompt, system_prompt, reason)
    and metrics.json. Raise CheckpointError if an input is missing, and InputError if a split is empty.
    """
    settings = pin_rewrites(settings)
    paths = _paths(settings)
    hashes = {name: hash_of_named(path) for name, path in paths.items()}
    hashes |= {f"evaluation/{Path(file).name}": hash_of(file) for file in settings.evaluation.files}
    folder = stage_folder(settings, STAGE, hashes)
    if (finished := finished_metrics(folder)) is not None:
        return finished
    if settings.source == "log":
        pairs, left_out, counts = _from_log(settings, paths)
    else:
        pairs, left_out, counts = _candidates(settings, paths), pd.DataFrame(columns=[*REWRITES, "reason"]), {}
    pairs, removed = _without_evaluation_prompts(settings, pairs)
    if settings.gain.required:
        counts["tried"] = len(pairs)
        pairs, refused = _approved(settings, paths, hashes, folder, pairs)
        counts["not_approved"] = len(refused)
        removed = pd.concat([removed, refused], ignore_index=True)
    if "split" not in pairs:
        pairs = pairs.assign(split=split_by_series(pairs["user_prompt"], settings.dev_share))
    check_splits(pairs, STAGE)
    write_table(folder / TABLE, pairs[[*REWRITES, "split"]].reset_index(drop=True))
    write_table(folder / LEFT_OUT, pd.concat([left_out, removed], ignore_index=True))
    counts |= {kind: int((removed["reason"] == kind).sum()) for kind in ("evaluation_exact", "evaluation_near")}
    counts |= {"kept": len(pairs), "kept_user_prompts": int(pairs["user_prompt"].nunique())}
    counts |= {f"kept_{split}": int((pairs["split"] == split).sum()) for split in ("train", "dev")}
    metrics = {"stage": STAGE, "source": settings.source, "counts": counts}
    write_metrics(folder, metrics)
    _log.info("rewrites: %s", ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    return metrics


def _paths(settings: RewritesSettings) -> dict[str, str]:
    """Return the paths of what the stage reads, by prepare's names. Raise CheckpointError if one is missing."""
    parts, data, synthetic = settings.run / "parts", settings.data or settings.run / "data", settings.synthetic
    if settings.source == "log":
        paths = {"log": str(settings.sessions.log or parts / "log" / "metadata.parquet")}
    else:
        paths = {"system_prompts_kept": str(data / SYSTEM_PROMPTS)}
        if synthetic.user_prompts == "table":
            paths["user_prompts"] = str(synthetic.table or parts / "prompts" / "user_prompts.parquet")
    if settings.gain.required:
        paths |= {"statistics": str(data / REWARDS), "generator": settings.gain.generator_source(settings.run)}
        rewards = settings.gain.reward_sources(settings.run)
        paths |= {f"rewards/{Path(reward.partition('=')[0]).name}": reward for reward in rewards}
    inside = [path for path in paths.values() if Path(path).is_relative_to(settings.run)]
    missing = [path for path in inside if not Path(path).exists()]
    if missing:
        raise CheckpointError(f"run: {', '.join(missing)} missing; run prip-train world and prepare first")
    return paths


def _from_log(settings: RewritesSettings, paths: dict[str, str]) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Return the rewrites of a log's sessions, the rejected pairs with the reason, and counts."""
    chosen = settings.sessions
    log, rows = read_log(Path(paths["log"]), chosen.max_prompt_nsfw)
    sessions = find_sessions(log, chosen.gap_minutes, chosen.shared)
    pairs, left_out, counts = rewrites_of_sessions(sessions)
    return pairs, left_out, {**rows, "users": int(log["user_name"].nunique()), **counts}


def _approved(
    settings: RewritesSettings, paths: dict[str, str], hashes: dict[str, str], folder: Path, tried: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rewrites that raise the rewards, and the others with the reason."""
    chosen, device = settings.gain, device_of(settings.device)
    rewards = load_rewards(
        [path for name, path in paths.items() if name.startswith("rewards/")], settings.device, chosen.dtype
    )
    names = [reward.name for reward in rewards]
    statistics = RewardStatistics.read(Path(paths["statistics"]), names)
    if statistics is None:
        raise CheckpointError(f"{paths['statistics']}: expected the means and deviations of {', '.join(names)}")
    drawn_with = {name: value for name, value in hashes.items() if name == "generator" or name.startswith("rewards/")}
    known = known_scores(Path(paths["statistics"]).parent, drawn_with, names)
    generator = load_generator(paths["generator"], device=device, **chosen.generator_options)
    cache = PlainScoreCache(folder / "baseline")
    if not len(cache) and known:
        cache.add({(prompt, seed): scores for (owner, prompt, seed), scores in known.items() if owner == prompt})
    scorer = ImageScorer(generator, rewards, cache, chosen.chunk)
    total = StandardisedSum(rewards, statistics.means, statistics.deviations)
    approved = np.array(_gains(settings, folder, tried, scorer, total, known)) > chosen.margin
    return tried[approved], tried.loc[~approved, REWRITES].assign(reason="the rewards do not approve")


def _candidates(settings: RewritesSettings, paths: dict[str, str]) -> pd.DataFrame:
    """Return user_prompt, system_prompt and, for user prompts of a table, their split."""
    chosen = settings.synthetic
    system = pd.read_parquet(paths["system_prompts_kept"])
    if chosen.user_prompts == "start":
        system = limit_prompts(system, "system_prompt", chosen.limit, settings.seed)
        return from_starts(system["system_prompt"].drop_duplicates().tolist())
    user, frames = read_prompts(Path(paths["user_prompts"]), "user_prompt", 0, settings.seed), []
    for split in ("train", "dev"):
        prompts = user.loc[user["split"] == split, "prompt"].tolist()
        texts = system.loc[system["split"] == split, "system_prompt"].tolist()
        frames.append(from_table(prompts, texts, chosen.per_user_prompt, settings.seed).assign(split=split))
    return pd.concat(frames, ignore_index=True)


def _gains(
    settings: RewritesSettings,
    folder: Path,
    tried: pd.DataFrame,
    scorer: ImageScorer,
    total: StandardisedSum,
    known: dict[Job, dict[str, float]],
) -> list[float]:
    """Return the gain of each rewrite, computed chunk by chunk; chunks in FOLDER/gains are reused."""
    chosen, result = settings.gain, list[float]()
    seeds = image_seeds(tried, known, chosen.images, settings.seed)
    with tqdm(total=len(tried), desc="score", unit="pair", disable=not settings.progress, mininterval=1) as bar:
        for start in range(0, len(tried), chosen.chunk):
            chunk = slice(start, start + chosen.chunk)
            path, rows = folder / "gains" / f"{start:09}.parquet", tried.iloc[chunk]
            if not path.exists():
                write_table(path, rows[REWRITES].assign(gain=gains(rows, seeds[chunk], scorer, total, known)))
            result += pd.read_parquet(path)["gain"].tolist()
            bar.update(len(rows))
    return result


def _without_evaluation_prompts(settings: RewritesSettings, pairs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rewrites without prompts of evaluation sets, and the others with the kind of match as reason."""
    distinct = pd.unique(pd.concat([pairs[column] for column in REWRITES]))
    occurs = occurring_in_files(distinct, **vars(settings.evaluation))
    kinds = dict(zip(occurs["prompt"], "evaluation_" + occurs["kind"], strict=True))
    reasons = pairs["user_prompt"].map(kinds).fillna(pairs["system_prompt"].map(kinds))
    return pairs[reasons.isna()], pairs.loc[reasons.notna(), REWRITES].assign(reason=reasons[reasons.notna()])
