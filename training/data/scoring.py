"""Scores of many images on disk, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from prip.errors import InputError
from prip.files import replace_file
from prip.protocols import Reward

from .parts import Part
from .workers import Job, Worker, Workers, job_batches

_GIVEN = ["image_name", "part", "reason"]


class Scorer:
    """Scores the images of a job for their texts, read by a number of threads.

    Raises:
        InputError: if two rewards share a name.
    """

    def __init__(self, rewards: Sequence[Reward], batch_size: int, threads: int = 1) -> None:
        names = [reward.name for reward in rewards]
        if len(set(names)) < len(names):
            raise InputError(f"rewards: expected different names, got {', '.join(names)}")
        self._rewards, self._batch_size, self._threads = rewards, batch_size, threads

    def __call__(self, job: Job) -> pd.DataFrame:
        """Return image_name, part, reason ("" or why an image has no scores) and a float32 column per reward."""
        rows, bad = job.images, dict[int, str]()
        texts = rows["text"].tolist()
        scores = {reward.name: np.full(len(rows), np.nan, np.float32) for reward in self._rewards}
        for batch in job_batches(job, self._batch_size, bad, self._threads):
            shown = batch.images.flatten(1).amax(dim=1) > 0
            for row, is_shown in zip(batch.indices, shown.tolist(), strict=True):
                if not is_shown:
                    bad[row] = "every pixel is black, as a safety checker leaves it"
            indices = [row for row, is_shown in zip(batch.indices, shown.tolist(), strict=True) if is_shown]
            images = batch.images if shown.all() else batch.images[shown]
            prompts = [texts[index] for index in indices]
            for reward in self._rewards if indices else []:
                scores[reward.name][indices] = reward(prompts, images).numpy()
        for name, values in scores.items():
            for index in np.flatnonzero(~np.isfinite(values)):
                bad.setdefault(int(index), f"{name} is {values[index]}")
        reasons = [bad.get(index, "") for index in range(len(rows))]
        return rows[["image_name", "part"]].assign(reason=reasons, **scores)


def score_parts(
    rows: pd.DataFrame,
    parts: Mapping[str, Part],
    make: Callable[[], Worker[pd.DataFrame]],
    workers: Workers,
    folder: Path,
    progress: bool,
    check: Callable[[list[str]], None],
) -> pd.DataFrame:
    """Return reason and a column per reward, as Scorer does, with the index of `rows`.

    Args:
        rows: image_name, part, text (what the image is scored for).
        parts: the parts by name.
        make: returns a Scorer.
        workers: run the jobs, one per part.
        folder: stores each part's table, which is reused if it has the same images.
        progress: whether to show a progress bar.
        check: called with the names of the rewards as soon as they are known; raises if they do not fit.
    """
    members = {str(part): group for part, group in rows.groupby("part", sort=False)}
    done = [part for part, group in members.items() if _is_scored(folder / f"{part}.parquet", group)]
    jobs = [Job(part, members[part], {part: parts[part]}) for part in members.keys() - set(done)]
    jobs.sort(key=lambda job: job.name)
    with tqdm(total=len(rows), desc="score", unit="image", disable=not progress, mininterval=1) as bar:
        bar.update(sum(len(members[part]) for part in done))
        for part in done[:1]:
            check(_reward_names(pd.read_parquet(folder / f"{part}.parquet")))
        for part, table in workers.run(make, jobs):
            check(_reward_names(table))
            replace_file(folder / f"{part}.parquet", partial(table.to_parquet, index=False))
            bar.update(len(table))
    tables = []
    for part, group in members.items():
        table = pd.read_parquet(folder / f"{part}.parquet")
        tables.append(table.drop(columns=["image_name", "part"]).set_index(group.index))
    return pd.concat(tables).loc[rows.index]


def _is_scored(path: Path, rows: pd.DataFrame) -> bool:
    if not path.exists():
        return False
    return pd.read_parquet(path, columns=["image_name"])["image_name"].tolist() == rows["image_name"].tolist()


def _reward_names(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if column not in _GIVEN]
