"""Stage 0: the data of the two warm-ups.

Draws images of user and system prompts with the generator, in DiffusionDB's layout, or takes such a folder as it is;
scores them, chooses preferred images and system prompts, and caches the pivots of the images that are then needed.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from prip.errors import CheckpointError, InputError, PripError
from prip.generators import load_generator
from prip.pivot_encoder import load_pivot_encoder
from prip.protocols import Generator, PivotEncoder, Reward
from prip.rewards import StandardisedSum, load_reward

from .atomic import replace_file, replace_text
from .data.diffusiondb import Sampling, read_diffusiondb
from .data.drawing import draw_all, plan_drawings
from .data.hashing import hash_of
from .data.images import read_batches
from .data.pairs import MANIFEST, PIVOTS, PREFERRED_IMAGES, SYSTEM_PROMPTS
from .data.pivot_cache import PivotCacheWriter
from .data.preferred import mine_preferred
from .data.scoring import means_and_deviations, raw_scores, score_parts
from .data.splits import check_splits, read_prompts, split_by_prompt
from .data.system_prompts import filter_system_prompts
from .harness import stage_folder
from .settings import PrepareSettings

STAGE = "prepare"
PROMPTS, SCORES, SET_ASIDE, REWARDS = "prompts.parquet", "scores.parquet", "set_aside.parquet", "rewards.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The frozen parts. The generator is loaded for drawing alone, and dropped afterwards."""

    make_generator: Callable[[], Generator]
    rewards: Sequence[Reward]
    pivot_encoder: PivotEncoder


def run(settings: PrepareSettings) -> dict[str, Any]:
    """Makes RUN/data and returns the metrics, which are in RUN/prepare/metrics.json too.

    Raises CheckpointError for a part that is missing, InputError for settings that do not fit the run, PripError if
    too many images are bad.
    """
    paths = part_paths(settings)
    folder = begin(settings, {name: hash_of(path) for name, path in paths.items()})
    finished = folder / "metrics.json"
    if finished.exists():
        _log.info("%s is finished already", folder)
        return json.loads(finished.read_text(encoding="utf-8"))
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    parts = Parts(
        lambda: load_generator(paths["generator"], device=device),
        [load_reward(path, device=device) for name, path in paths.items() if name.startswith("rewards/")],
        load_pivot_encoder(paths["pivot_encoder"], device=device),
    )
    return prepare(settings, folder, parts)


def part_paths(settings: PrepareSettings) -> dict[str, str]:
    """Returns what the stage reads, by name: tables of prompts, generator, rewards/NAME, pivot encoder.

    Raises CheckpointError for one that is to be in the run and is not, InputError for two rewards of one name.
    """
    parts = settings.run / "parts"
    rewards = list(settings.rewards) or sorted(map(str, (parts / "rewards").glob("*/")))
    paths = {f"rewards/{Path(reward).name}": reward for reward in rewards}
    if len(paths) < len(rewards):
        raise InputError(f"rewards: wanted names that differ, got {', '.join(rewards)}")
    if settings.diffusiondb is None:
        paths["user_prompts"] = str(settings.user_prompts or parts / "prompts" / "user_prompts.parquet")
        paths["system_prompts"] = str(settings.system_prompts or parts / "prompts" / "system_prompts.parquet")
        paths["generator"] = settings.generator or str(parts / "generator")
    paths["pivot_encoder"] = settings.pivot_encoder or str(parts / "pivot_encoder")
    missing = [] if rewards else [str(parts / "rewards")]
    missing += [path for path in paths.values() if Path(path).is_relative_to(parts) and not Path(path).exists()]
    if missing:
        raise CheckpointError(f"run: {', '.join(missing)} missing; does prip-train world come first?")
    return paths


def begin(settings: PrepareSettings, inputs: dict[str, str]) -> Path:
    """Makes RUN/prepare and RUN/data ready; returns RUN/prepare.

    inputs: hashes of what the stage reads. Raises InputError for a RUN/data that this stage did not make, and for
    a continuation whose inputs have changed.
    """
    data = settings.run / "data"
    if settings.overwrite:
        shutil.rmtree(data, ignore_errors=True)
    elif data.exists() and not (settings.run / STAGE / "inputs.json").exists():
        raise InputError(f"run: {data} was not made by prepare in this run: add --overwrite to replace it")
    return stage_folder(settings, STAGE, inputs)


def prepare(settings: PrepareSettings, folder: Path, parts: Parts) -> dict[str, Any]:
    """Does the stage with these parts: all of RUN/data, and metrics.json in `folder`; returns the metrics."""
    times, data = [time.monotonic()], settings.run / "data"
    if settings.diffusiondb is None:
        source, prompts, drawn = draw(settings, data, parts.make_generator)
    else:
        source, prompts, drawn = settings.diffusiondb, None, 0
    times.append(time.monotonic())
    images, set_aside = score(settings, folder, source, prompts, parts.rewards)
    times.append(time.monotonic())
    mined = mine(settings, images, prompts, parts.rewards)
    needed = pd.unique(
        pd.concat([mined.preferred["image_name"], mined.preferred["random_image_name"], mined.kept["image_name"]])
    ).tolist()
    cache_pivots(images, needed, parts.pivot_encoder, data / PIVOTS, settings.batch_size, settings.progress)
    times.append(time.monotonic())
    counts = {
        "images": len(images),
        "set_aside": set_aside,
        "user_prompts": int(mined.user["prompt"].nunique()),
        "preferred_images": len(mined.preferred),
        "system_prompts": int(mined.system["prompt"].nunique()),
        "system_prompts_kept": len(mined.kept),
        "pivots": len(needed),
    }
    _write_manifest(settings, folder, counts)
    metrics = {
        "stage": STAGE,
        "counts": {"drawn": drawn, **counts},
        "rewards": mined.rewards,
        "standardised_sum": {
            "preferred": _mean_score(mined.user, mined.preferred["image_name"]),
            "random": _mean_score(mined.user, mined.preferred["random_image_name"]),
            "system_prompts": float(mined.system["score"].mean()),
            "system_prompts_kept": _mean_score(mined.system, mined.kept["image_name"]),
        },
        "seconds": {
            name: round(times[place + 1] - times[place], 1) for place, name in enumerate(("draw", "score", "pivots"))
        },
    }
    replace_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    _log.info("prepare: %s", ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    return metrics


def draw(
    settings: PrepareSettings, data: Path, make_generator: Callable[[], Generator]
) -> tuple[Path, pd.DataFrame, int]:
    """Draws all images of the prompts' tables that are not there yet, and writes DATA/prompts.parquet.

    Returns the folder in DiffusionDB's layout, that table (image_name, prompt, seed, origin "user" or "system", split),
    and how many images were drawn.
    """
    paths = part_paths(settings)
    user = read_prompts(Path(paths["user_prompts"]), "user_prompt", settings.user_prompt_limit, settings.seed)
    system = read_prompts(Path(paths["system_prompts"]), "system_prompt", settings.system_prompt_limit, settings.seed)
    plan = pd.concat(
        [
            plan_drawings(user, "user", settings.images_per_user_prompt, settings.seed),
            plan_drawings(system, "system", 1, settings.seed),
        ],
        ignore_index=True,
    )
    folder, generator = data / "diffusiondb", make_generator()
    sampling = Sampling(getattr(generator, "steps", 0), getattr(generator, "guidance", 0.0))
    drawn = draw_all(plan, generator, sampling, folder, settings.batch_size, settings.progress)
    _write(data / PROMPTS, plan)
    return folder, plan, drawn


def score(
    settings: PrepareSettings, folder: Path, source: Path, prompts: pd.DataFrame | None, rewards: Sequence[Reward]
) -> tuple[pd.DataFrame, int]:
    """Scores all images of `source`, a folder in DiffusionDB's layout, and writes DATA/scores and DATA/set_aside.

    Returns image_name, prompt, part, path and a column of raw scores for each reward, and how many images are bad.
    Raises PripError if their share is larger than it may be, InputError for two rewards of one name.
    """
    data, names = settings.run / "data", [reward.name for reward in rewards]
    if len(set(names)) < len(names):
        raise InputError(f"rewards: wanted names that differ, got {', '.join(names)}")
    found = read_diffusiondb(source)
    rows = found.rows.assign(text=_texts(found.rows, prompts, settings.system.scored_for))
    scores = score_parts(rows, rewards, folder / "scores", settings.batch_size, settings.progress)
    good = scores["reason"] == ""
    set_aside = pd.concat([found.set_aside, scores.loc[~good, ["image_name", "part", "reason"]]], ignore_index=True)
    _write(data / SET_ASIDE, set_aside)
    bad, total = len(set_aside), len(found.set_aside) + len(rows)
    if bad > settings.max_bad_share * total:
        raise PripError(
            f"max_bad_share: wanted at most {settings.max_bad_share:g}, but {bad} of {total} images are bad; "
            f"the reasons are in {data / SET_ASIDE}"
        )
    if bad:
        _log.warning("%d of %d images are set aside; the reasons are in %s", bad, total, data / SET_ASIDE)
    images = found.rows[good].join(scores.loc[good, names])
    _write(data / SCORES, images[["image_name", *names]])
    return images, bad


@dataclass(frozen=True)
class Mined:
    """What the scores say. user, system: images by origin, with their score (the standardised sum) and split."""

    user: pd.DataFrame
    system: pd.DataFrame
    preferred: pd.DataFrame
    kept: pd.DataFrame
    rewards: dict[str, dict[str, float]]


def mine(
    settings: PrepareSettings, images: pd.DataFrame, prompts: pd.DataFrame | None, rewards: Sequence[Reward]
) -> Mined:
    """Chooses preferred images and system prompts; writes their tables, and the rewards' means and deviations."""
    data, names = settings.run / "data", [reward.name for reward in rewards]
    user, system = _by_origin(images, prompts, settings.dev_share)
    means, deviations = means_and_deviations(user, names)
    combined = StandardisedSum(rewards, means, deviations)
    user = user.assign(score=combined.combine(raw_scores(user, names)).numpy())
    system = system.assign(score=combined.combine(raw_scores(system, names)).numpy())
    preferred = mine_preferred(user, settings.preferred_per_prompt, settings.seed)
    kept = filter_system_prompts(system, settings.system.keep_share, settings.system.thresholds)
    check_splits(preferred, "preferred images")
    check_splits(kept, "kept system prompts")
    measured = {"means": means, "deviations": deviations}
    replace_text(data / REWARDS, json.dumps(measured, indent=2) + "\n")
    _write(data / PREFERRED_IMAGES, preferred)
    _write(data / SYSTEM_PROMPTS, kept)
    return Mined(user, system, preferred, kept, measured)


def cache_pivots(
    images: pd.DataFrame, names: list[str], pivot_encoder: PivotEncoder, folder: Path, batch_size: int, progress: bool
) -> None:
    """Writes the pivots of the images `names` as a PivotCache. images: image_name, path.

    Raises PripError if a file that could be read before cannot any more.
    """
    path_of = dict(zip(images["image_name"], images["path"], strict=True))
    bad: dict[int, str] = {}
    with (
        PivotCacheWriter(folder) as writer,
        tqdm(total=len(names), desc="pivots", unit="image", disable=not progress, mininterval=1) as bar,
    ):
        for batch in read_batches([path_of[name] for name in names], batch_size, bad):
            writer.add([names[place] for place in batch.places], pivot_encoder(batch.images))
            bar.update(len(batch.places))
        for place, reason in bad.items():
            raise PripError(f"{path_of[names[place]]} was read before, but now {reason}")


def _texts(rows: pd.DataFrame, prompts: pd.DataFrame | None, scored_for: str) -> pd.Series:
    """Returns what each image is scored for; images of system prompts may be scored for the start of theirs."""
    if prompts is None or scored_for == "prompt":
        return rows["prompt"]
    of_user = rows["image_name"].isin(prompts.loc[prompts["origin"] == "user", "image_name"])
    return rows["prompt"].where(of_user, rows["prompt"].str.partition(",")[0].str.strip())


def _by_origin(
    images: pd.DataFrame, prompts: pd.DataFrame | None, dev_share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the images of user prompts and those of system prompts, with their split, as `prompts` tells them.

    A folder that is mined as it is does not tell them: user prompts are then those with two images or more, all are
    system prompts, and dev_share of the prompts are dev.
    """
    if prompts is None:
        system = images.assign(split=split_by_prompt(images["prompt"], dev_share))
        return system[system.groupby("prompt")["image_name"].transform("size") >= 2], system
    told = prompts[["image_name", "origin", "split"]]
    joined = images.merge(told, on="image_name", how="inner", validate="one_to_many")
    return joined[joined["origin"] == "user"], joined[joined["origin"] == "system"]


def _mean_score(images: pd.DataFrame, names: pd.Series) -> float:
    return float(images.set_index("image_name")["score"].loc[names].mean())


def _write(path: Path, frame: pd.DataFrame) -> None:
    replace_file(path, lambda temporary: frame.to_parquet(temporary, index=False))


def _write_manifest(settings: PrepareSettings, folder: Path, counts: dict[str, int]) -> None:
    """Writes DATA/manifest.json: settings, hashes of the inputs, counts, and hashes of what was made."""
    data = settings.run / "data"
    made = [PREFERRED_IMAGES, SYSTEM_PROMPTS, SCORES, SET_ASIDE, REWARDS, PIVOTS]
    made += [PROMPTS] if settings.diffusiondb is None else []
    manifest = {
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "inputs": json.loads((folder / "inputs.json").read_text(encoding="utf-8")),
        "counts": counts,
        "sha256": {name: hash_of(data / name) for name in made},
    }
    replace_text(data / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
