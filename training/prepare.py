"""Stage 0: the data of the two warm-ups.

Draws images of user and system prompts with the generator, in DiffusionDB's layout, or takes a DiffusionDB as it is;
scores them, chooses preferred images and system prompts, and caches the pivots of the images that are then needed.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from prip.errors import CheckpointError, InputError, PripError
from prip.generators import load_generator
from prip.pivot_encoder import load_pivot_encoder
from prip.protocols import Generator, PivotEncoder, Reward
from prip.rewards import load_reward

from .atomic import replace_text
from .data.diffusiondb import NO_PROMPT, Sampling, read_diffusiondb
from .data.drawing import draw_all, plan_drawings
from .data.evaluation_sets import occurring, read_evaluation_prompts
from .data.filters import filter_rows
from .data.hashing import hash_of, hash_of_named
from .data.mining import REWARDS, check_reward_names, mine, write_table
from .data.pairs import MANIFEST, PIVOTS, PREFERRED_IMAGES, SYSTEM_PROMPTS
from .data.pivots import PivotMaker, make_pivots, plan_shards
from .data.scoring import Scorer, score_parts
from .data.source import Source, find_source, pinned
from .data.splits import read_prompts
from .data.workers import RayWorkers, ThisProcess, Workers
from .harness import stage_folder
from .settings import PrepareSettings

STAGE = "prepare"
PROMPTS, SCORES, SET_ASIDE = "prompts.parquet", "scores.parquet", "set_aside.parquet"
EVALUATION = "evaluation_prompts.parquet"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """How the frozen parts are loaded: by whoever works with them. The generator is dropped after drawing."""

    make_generator: Callable[[], Generator]
    make_rewards: Callable[[], Sequence[Reward]]
    make_pivot_encoder: Callable[[], PivotEncoder]


def run(settings: PrepareSettings) -> dict[str, Any]:
    """Makes RUN/data and returns the metrics, which are in RUN/prepare/metrics.json too.

    Raises CheckpointError for a part that is missing, InputError for settings that do not fit the run, PripError if
    too many images are bad.
    """
    paths = part_paths(settings)
    folder = begin(settings, input_hashes(settings))
    finished = folder / "metrics.json"
    if finished.exists():
        _log.info("%s is finished already", folder)
        return json.loads(finished.read_text(encoding="utf-8"))
    rewards = [path for name, path in paths.items() if name.startswith("rewards/")]
    make_rewards = partial(load_rewards, rewards, settings.device, settings.dtype)
    make_pivot_encoder = partial(load_pivots, paths["pivot_encoder"], settings.device, settings.dtype)
    if not settings.ray.workers:  # what cannot be loaded is then told before anything is drawn
        loaded, pivot_encoder = make_rewards(), make_pivot_encoder()
        make_rewards, make_pivot_encoder = lambda: loaded, lambda: pivot_encoder  # type: ignore[assignment]
    parts = Parts(
        lambda: load_generator(paths["generator"], device=device_of(settings.device), **settings.generator_options),
        make_rewards,
        make_pivot_encoder,
    )
    return prepare(settings, folder, parts)


def device_of(device: str) -> str:
    """Returns the device that "auto" means on this machine, or `device`."""
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def load_rewards(names: Sequence[str], device: str, dtype: str | None) -> list[Reward]:
    """Loads the rewards `names`, frozen."""
    return [load_reward(name, device=device_of(device), **_dtype(dtype)) for name in names]


def load_pivots(name: str, device: str, dtype: str | None) -> PivotEncoder:
    """Loads the pivot encoder `name`, frozen."""
    return load_pivot_encoder(name, device=device_of(device), **_dtype(dtype))


def _dtype(dtype: str | None) -> dict[str, Any]:
    return {} if dtype is None else {"dtype": getattr(torch, dtype)}


def part_paths(settings: PrepareSettings) -> dict[str, str]:
    """Returns what the stage reads, by name: tables of prompts, generator, rewards/NAME, pivot encoder.

    Raises CheckpointError for one that is to be in the run and is not, InputError for two rewards of one name.
    """
    parts = settings.run / "parts"
    rewards = list(settings.rewards) or sorted(map(str, (parts / "rewards").glob("*/")))
    paths = {f"rewards/{_short(reward)}": reward for reward in rewards}
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


def _short(reward: str) -> str:
    """Returns NAME of NAME=PLACE, and the last part of a path."""
    return Path(reward).name if Path(reward).exists() else Path(reward.partition("=")[0]).name


def input_hashes(settings: PrepareSettings) -> dict[str, str]:
    """Returns the hashes of what the stage reads, by name; of what is on the Hub its name, with the commit of data."""
    hashes = {name: hash_of_named(path) for name, path in part_paths(settings).items()}
    if settings.diffusiondb is not None:
        hashes["diffusiondb"] = pinned(settings.diffusiondb)
    return hashes | {f"evaluation/{path.name}": hash_of(path) for path in settings.evaluation.files}


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
        place, prompts, drawn = draw(settings, data, parts.make_generator)
        source = find_source(place)
    else:
        prompts, drawn = None, 0
        chosen = settings.source
        source = find_source(settings.diffusiondb, chosen.subset, chosen.first_part, chosen.part_limit, chosen.keep)
    times.append(time.monotonic())
    with _workers(settings) as workers:
        scored = score(settings, folder, source, prompts, parts.make_rewards, workers)
        times.append(time.monotonic())
        mined = mine(settings, scored.images, prompts, scored.rewards)
        pivots = cache_pivots(settings, source, scored.images, mined.needed, parts.make_pivot_encoder, workers)
    times.append(time.monotonic())
    counts = {
        "images": len(scored.images),
        **scored.counts,
        "user_prompts": int(mined.user["prompt"].nunique()),
        "preferred_images": len(mined.preferred),
        "system_prompts": int(mined.system["prompt"].nunique()),
        "system_prompts_kept": len(mined.kept),
        "pivots": pivots,
    }
    _write_manifest(settings, folder, counts)
    metrics = {
        "stage": STAGE,
        "counts": {"drawn": drawn, **counts},
        "rewards": asdict(mined.rewards),
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


def cache_pivots(
    settings: PrepareSettings,
    source: Source,
    images: pd.DataFrame,
    needed: list[str],
    make_pivot_encoder: Callable[[], PivotEncoder],
    workers: Workers,
) -> int:
    """Makes DATA/pivots the PivotCache of the images `needed`; returns their number. images: image_name, part.

    Raises PripError if a file that could be read before cannot any more.
    """
    rows = images.set_index("image_name")["part"].loc[needed].rename_axis("image_name").reset_index()
    parts = {part.name: part for part in source.parts}
    jobs = plan_shards(rows, parts, settings.pivot_shard, settings.batch_size)
    make = partial(_make_pivots, make_pivot_encoder, settings.batch_size, settings.read_threads)
    make_pivots(jobs, make, workers, settings.run / "data" / PIVOTS, settings.progress)
    return len(needed)


def _workers(settings: PrepareSettings) -> RayWorkers | ThisProcess:
    ray = settings.ray
    return RayWorkers(ray.address, ray.workers, ray.num_cpus, ray.num_gpus) if ray.workers else ThisProcess()


def _make_scorer(make_rewards: Callable[[], Sequence[Reward]], batch_size: int, threads: int) -> Scorer:
    return Scorer(make_rewards(), batch_size, threads)


def _make_pivots(make_pivot_encoder: Callable[[], PivotEncoder], batch_size: int, threads: int) -> PivotMaker:
    return PivotMaker(make_pivot_encoder(), batch_size, threads)


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
    write_table(data / PROMPTS, plan)
    return folder, plan, drawn


@dataclass(frozen=True)
class Scored:
    """images: image_name, prompt, part, and a column of raw scores for each of `rewards`. counts: of what is left out:
    set_aside (bad images), empty_prompts, each filter, and evaluation_exact and evaluation_near (prompts)."""

    images: pd.DataFrame
    rewards: list[str]
    counts: dict[str, int]


def score(
    settings: PrepareSettings,
    folder: Path,
    source: Source,
    prompts: pd.DataFrame | None,
    make_rewards: Callable[[], Sequence[Reward]],
    workers: Workers,
) -> Scored:
    """Scores all images of `source` that are of use, and writes DATA/scores, set_aside and evaluation_prompts.

    Raises PripError if the share of bad images is larger than it may be, InputError for two rewards of one name or for
    settings that name another one.
    """
    data, parts = settings.run / "data", {part.name: part for part in source.parts}
    found = read_diffusiondb(source.parts, source.metadata)
    empty = found.set_aside["reason"] == NO_PROMPT
    _check_bad(settings, int((~empty).sum()), len(found.rows) + int((~empty).sum()), found.set_aside)
    filters = settings.filters
    rows, filtered = filter_rows(
        found.rows, filters.max_image_nsfw, filters.max_prompt_nsfw, filters.keep_blurred, filters.keep_duplicates
    )
    rows, removed = _without_evaluation_prompts(settings, rows)
    texts = _texts(rows, prompts, settings.system.scored_for)
    make = partial(_make_scorer, make_rewards, settings.batch_size, settings.read_threads)
    check = partial(check_reward_names, settings)
    scores = score_parts(rows.assign(text=texts), parts, make, workers, folder / "scores", settings.progress, check)
    good = scores["reason"] == ""
    worse = rows.loc[~good, ["image_name", "part"]].assign(reason=scores["reason"][~good])
    set_aside = pd.concat([found.set_aside, worse], ignore_index=True)
    bad = int((set_aside["reason"] != NO_PROMPT).sum())
    _check_bad(settings, bad, len(rows) + bad - len(worse), set_aside)
    names = [column for column in scores.columns if column != "reason"]
    images = rows.loc[good, ["image_name", "prompt", "part"]].join(scores.loc[good, names])
    write_table(data / SCORES, images[["image_name", *names]])
    counts = {"set_aside": bad, "empty_prompts": int(empty.sum()), **filtered, **removed}
    return Scored(images, names, counts)


def _check_bad(settings: PrepareSettings, bad: int, total: int, set_aside: pd.DataFrame) -> None:
    """Writes DATA/set_aside. Raises PripError if `bad` of `total` images are too many."""
    path = settings.run / "data" / SET_ASIDE
    write_table(path, set_aside)
    if bad > settings.max_bad_share * total:
        raise PripError(
            f"max_bad_share: wanted at most {settings.max_bad_share:g}, but {bad} of {total} images are bad; "
            f"the reasons are in {path}"
        )
    if bad:
        _log.warning("%d of %d images are set aside; the reasons are in %s", bad, total, path)


def _without_evaluation_prompts(settings: PrepareSettings, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Returns the rows whose prompt is in no evaluation set, and how many prompts are; writes them to a table."""
    chosen = settings.evaluation
    prompts = [prompt for path in chosen.files for prompt in read_evaluation_prompts(path, chosen.column)]
    occurs = occurring(rows["prompt"].unique(), prompts, chosen.similarity, chosen.ngram, chosen.permutations)
    write_table(settings.run / "data" / EVALUATION, occurs)
    counts = {f"evaluation_{kind}": int((occurs["kind"] == kind).sum()) for kind in ("exact", "near")}
    return rows[~rows["prompt"].isin(occurs["prompt"])], counts


def _texts(rows: pd.DataFrame, prompts: pd.DataFrame | None, scored_for: str) -> pd.Series:
    """Returns what each image is scored for; images of system prompts may be scored for the start of theirs."""
    if prompts is None or scored_for == "prompt":
        return rows["prompt"]
    of_user = rows["image_name"].isin(prompts.loc[prompts["origin"] == "user", "image_name"])
    return rows["prompt"].where(of_user, rows["prompt"].str.partition(",")[0].str.strip())


def _mean_score(images: pd.DataFrame, names: pd.Series) -> float:
    return float(images.set_index("image_name")["score"].loc[names].mean())


def _write_manifest(settings: PrepareSettings, folder: Path, counts: dict[str, int]) -> None:
    """Writes DATA/manifest.json: settings, hashes of the inputs, counts, and hashes of what was made."""
    data = settings.run / "data"
    made = [PREFERRED_IMAGES, SYSTEM_PROMPTS, SCORES, SET_ASIDE, EVALUATION, REWARDS, PIVOTS]
    made += [PROMPTS] if settings.diffusiondb is None else []
    manifest = {
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "inputs": json.loads((folder / "inputs.json").read_text(encoding="utf-8")),
        "counts": counts,
        "sha256": {name: hash_of(data / name) for name in made},
    }
    replace_text(data / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
