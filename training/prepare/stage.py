"""`prip-train prepare`: the data of the two warm-ups.

Draw images of user and system prompts in DiffusionDB's layout, or read a DiffusionDB; score the images, choose
preferred images and system prompts, and cache the pivots that the warm-ups need.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from prip.errors import InputError, PripError
from prip.files import hash_of, replace_text
from prip.protocols import Generator, PivotEncoder, Reward

from ..data.diffusiondb import NO_PROMPT, Sampling, read_diffusiondb
from ..data.drawing import draw_all, plan_drawings
from ..data.evaluation_sets import occurring_in_files
from ..data.filters import filter_rows
from ..data.mining import REWARDS, check_reward_names, mine, write_table
from ..data.pairs import MANIFEST, PIVOTS, PREFERRED_IMAGES, SYSTEM_PROMPTS
from ..data.pivots import PivotMaker, make_pivots, plan_shards
from ..data.scoring import Scorer, score_parts
from ..data.source import Source, find_source
from ..data.splits import read_prompts
from ..data.workers import RayWorkers, ThisProcess, Workers
from ..runs.pinned_settings import pin_prepare
from ..runs.run_folder import check_packages, finished_metrics, stage_folder, write_metrics
from ..settings import PrepareSettings
from .parts import Parts, input_hashes, part_paths, parts_of

STAGE = "prepare"
PROMPTS, SCORES, SET_ASIDE = "prompts.parquet", "scores.parquet", "set_aside.parquet"
EVALUATION = "evaluation_prompts.parquet"
_log = logging.getLogger(__name__)


def run(settings: PrepareSettings) -> dict[str, Any]:
    """Make RUN/data, and return the metrics, which are also in RUN/prepare/metrics.json.

    Raise CheckpointError if a part is missing, InputError if the settings do not fit the run, and PripError if too many
    images are bad.
    """
    settings = pin_prepare(settings)
    inputs = input_hashes(settings)
    if settings.overwrite:
        check_usable(settings, parts_of(settings))
    folder = begin(settings, inputs)
    finished = finished_metrics(folder)
    return prepare(settings, folder, parts_of(settings)) if finished is None else finished


def check_usable(settings: PrepareSettings, parts: Parts) -> None:
    """Load the generator and connect to Ray, where the settings ask for them, so that failures precede deletion."""
    check_packages(settings)
    with _workers(settings):
        if settings.diffusiondb is None:
            parts.make_generator()


def begin(settings: PrepareSettings, inputs: dict[str, str]) -> Path:
    """Create RUN/prepare and RUN/data, and return RUN/prepare.

    `inputs` are hashes of what the stage reads. Raise InputError if RUN/data comes from elsewhere, or if the inputs of
    a resumed run differ.
    """
    data = settings.run / "data"
    if not settings.overwrite and data.exists() and not (settings.run / STAGE / "inputs.json").exists():
        raise InputError(f"run: {data} was not written by prepare in this run; add --overwrite to replace it")
    return stage_folder(settings, STAGE, inputs, outputs=[data])


def prepare(settings: PrepareSettings, folder: Path, parts: Parts) -> dict[str, Any]:
    """Run the stage with these parts: make all of RUN/data and metrics.json in `folder`, and return the metrics."""
    moments, data = [(time.monotonic(), 0.0)], settings.run / "data"
    with _workers(settings) as workers:  # before drawing, so that no image is drawn for a cluster out of reach
        if settings.diffusiondb is None:
            drawings, prompts, drawn = draw(settings, data, parts.make_generator)
            source = find_source(drawings)
        else:
            prompts, drawn = None, 0
            chosen = settings.source
            source = find_source(settings.diffusiondb, chosen.subset, chosen.first_part, chosen.part_limit, chosen.keep)
        moments.append((time.monotonic(), workers.start_seconds))
        scored = score(settings, folder, source, prompts, parts.make_rewards, workers)
        moments.append((time.monotonic(), workers.start_seconds))
        mined = mine(settings, scored.images, prompts, scored.rewards)
        pivots = cache_pivots(settings, source, scored.images, mined.needed, parts.make_pivot_encoder, workers)
        moments.append((time.monotonic(), workers.start_seconds))
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
        "seconds": _seconds(moments),
    }
    write_metrics(folder, metrics)
    _log.info("prepare:\n%s", "\n".join(f"  {count} {name.replace('_', ' ')}" for name, count in counts.items()))
    return metrics


def _seconds(moments: list[tuple[float, float]]) -> dict[str, float]:
    """Return the seconds spent drawing, scoring and making pivots, and, separately, starting workers.

    `moments` are the time and the workers' start_seconds, before each of the three and after the last.
    """
    names = ("draw", "score", "pivots")
    spans = {
        name: (end - begin) - (started_end - started)
        for name, (begin, started), (end, started_end) in zip(names, moments, moments[1:], strict=False)
    }
    return {name: round(value, 3) for name, value in {**spans, "start": moments[-1][1]}.items()}


def cache_pivots(
    settings: PrepareSettings,
    source: Source,
    images: pd.DataFrame,
    needed: list[str],
    make_pivot_encoder: Callable[[], PivotEncoder],
    workers: Workers,
) -> int:
    """Make DATA/pivots the PivotCache of the images `needed`, and return their number.

    `images` has image_name and part. Raise PripError if a file is no longer readable.
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
    """Draw the missing images of the tables of prompts, and write DATA/prompts.parquet.

    Return the folder in DiffusionDB's layout, that table (image_name, prompt, seed, origin "user" or "system", split),
    and the number of images drawn.
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
    """The scores of the images.

    images: image_name, prompt, part, and raw scores in a column per reward. counts: images set_aside (bad),
    empty_prompts and those dropped by each filter; prompts dropped as evaluation_exact and evaluation_near.
    """

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
    """Score all usable images of `source`, and write DATA/scores, set_aside and evaluation_prompts.

    Raise PripError if too many images are bad, and InputError if two rewards share a name or the settings name an
    unknown one.
    """
    data, parts = settings.run / "data", {part.name: part for part in source.parts}
    database = read_diffusiondb(source.parts, source.metadata)
    empty = database.set_aside["reason"] == NO_PROMPT
    _check_bad(settings, int((~empty).sum()), len(database.rows) + int((~empty).sum()), database.set_aside)
    filters = settings.filters
    rows, filtered = filter_rows(
        database.rows, filters.max_image_nsfw, filters.max_prompt_nsfw, filters.keep_blurred, filters.keep_duplicates
    )
    rows, removed = _without_evaluation_prompts(settings, rows)
    texts = _texts(rows, prompts, settings.system.scored_for)
    make = partial(_make_scorer, make_rewards, settings.batch_size, settings.read_threads)
    check = partial(check_reward_names, settings)
    scores = score_parts(rows.assign(text=texts), parts, make, workers, folder / "scores", settings.progress, check)
    good = scores["reason"] == ""
    worse = rows.loc[~good, ["image_name", "part"]].assign(reason=scores["reason"][~good])
    set_aside = pd.concat([database.set_aside, worse], ignore_index=True)
    bad = int((set_aside["reason"] != NO_PROMPT).sum())
    _check_bad(settings, bad, len(rows) + bad - len(worse), set_aside)
    names = [column for column in scores.columns if column != "reason"]
    images = rows.loc[good, ["image_name", "prompt", "part"]].join(scores.loc[good, names])
    write_table(data / SCORES, images[["image_name", *names]])
    counts = {"set_aside": bad, "empty_prompts": int(empty.sum()), **filtered, **removed}
    return Scored(images, names, counts)


def _check_bad(settings: PrepareSettings, bad: int, total: int, set_aside: pd.DataFrame) -> None:
    """Write DATA/set_aside. Raise PripError if `bad` of `total` images are too many."""
    path = settings.run / "data" / SET_ASIDE
    write_table(path, set_aside)
    if bad > settings.max_bad_share * total:
        raise PripError(
            f"max_bad_share: expected at most {settings.max_bad_share:g}, got {bad} bad images of {total}; see {path}"
        )
    if bad:
        _log.warning("%d of %d images set aside; see %s", bad, total, path)


def _without_evaluation_prompts(settings: PrepareSettings, rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows whose prompt is in no evaluation set, and counts of the prompts that are; write the latter."""
    occurs = occurring_in_files(rows["prompt"].unique(), **vars(settings.evaluation))
    write_table(settings.run / "data" / EVALUATION, occurs)
    counts = {f"evaluation_{kind}": int((occurs["kind"] == kind).sum()) for kind in ("exact", "near")}
    return rows[~rows["prompt"].isin(occurs["prompt"])], counts


def _texts(rows: pd.DataFrame, prompts: pd.DataFrame | None, scored_for: str) -> pd.Series:
    """Return the text that each image is scored for: its prompt, or the start of a system prompt."""
    if prompts is None or scored_for == "prompt":
        return rows["prompt"]
    of_user = rows["image_name"].isin(prompts.loc[prompts["origin"] == "user", "image_name"])
    return rows["prompt"].where(of_user, rows["prompt"].str.partition(",")[0].str.strip())


def _mean_score(images: pd.DataFrame, names: pd.Series) -> float:
    return float(images.set_index("image_name")["score"].loc[names].mean())


def _write_manifest(settings: PrepareSettings, folder: Path, counts: dict[str, int]) -> None:
    """Write DATA/manifest.json: settings, hashes of inputs and outputs, and counts."""
    data = settings.run / "data"
    names = [PREFERRED_IMAGES, SYSTEM_PROMPTS, SCORES, SET_ASIDE, EVALUATION, REWARDS, PIVOTS]
    names += [PROMPTS] if settings.diffusiondb is None else []
    manifest = {
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "inputs": json.loads((folder / "inputs.json").read_text(encoding="utf-8")),
        "counts": counts,
        "sha256": {name: hash_of(data / name) for name in names},
    }
    replace_text(data / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
