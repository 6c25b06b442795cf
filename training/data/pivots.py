"""Pivots of the images that the warm-ups need: plan the shards and make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from prip.errors import PripError
from prip.protocols import PivotEncoder

from .parts import Part
from .pivot_cache import INDEX, is_shard_of, write_index, write_shard
from .workers import Job, Worker, Workers, job_batches


class PivotMaker:
    """Makes the pivots of the images of a job, read by a number of threads."""

    def __init__(self, pivot_encoder: PivotEncoder, batch_size: int, threads: int = 1) -> None:
        self._encoder, self._batch_size, self._threads = pivot_encoder, batch_size, threads

    def __call__(self, job: Job) -> np.ndarray:
        """Return fp16 (n, pivot_length, pivot_width). Raise PripError for an image that cannot be read."""
        names, parts = job.images["image_name"].tolist(), job.images["part"].tolist()
        pivots = torch.empty(len(names), self._encoder.pivot_length, self._encoder.pivot_width, dtype=torch.float16)
        bad: dict[int, str] = {}
        for batch in job_batches(job, self._batch_size, bad, self._threads):
            pivots[batch.indices] = self._encoder(batch.images).to(torch.float16)
        for index, reason in bad.items():
            raise PripError(f"{parts[index]}/{names[index]} was readable before; now {reason}")
        return pivots.numpy()


def plan_shards(images: pd.DataFrame, parts: Mapping[str, Part], most: int, batch_size: int) -> list[Job]:
    """Return one job per shard of `images` (image_name, part), of at most `most` images, rounded down to whole batches.

    Images of a packed part get shards of their own, so that each part is opened rarely; the others fill shards in
    order.
    """
    size = max(1, most // batch_size) * batch_size if most >= batch_size else most
    packed = images["part"].map({name: part.packed for name, part in parts.items()}).astype(bool)
    groups = [("loose", images[~packed])]
    groups += [(str(part), members) for part, members in images[packed].groupby("part")]
    jobs = []
    for label, members in groups:
        for number, start in enumerate(range(0, len(members), size), 1):
            chosen = members.iloc[start : start + size]
            names = dict.fromkeys(chosen["part"])
            jobs.append(Job(f"{label}-{number:05}", chosen, {name: parts[name] for name in names}))
    return jobs


def make_pivots(
    jobs: Sequence[Job], make: Callable[[], Worker[np.ndarray]], workers: Workers, folder: Path, progress: bool
) -> int:
    """Make `folder` the PivotCache of the images of all jobs, and return the number of pivots made.

    `make` returns a PivotMaker. Existing shards of the same images are kept.
    """
    (folder / INDEX).unlink(missing_ok=True)
    names = {_file(job.name): job.images["image_name"].tolist() for job in jobs}
    missing = [job for job in jobs if not is_shard_of(folder / _file(job.name), names[_file(job.name)])]
    count = sum(len(job.images) for job in missing)
    total = sum(map(len, names.values()))
    with tqdm(total=total, desc="pivots", unit="image", disable=not progress, mininterval=1) as bar:
        bar.update(total - count)
        for name, pivots in workers.run(make, missing):
            write_shard(folder / _file(name), names[_file(name)], pivots)
            bar.update(len(pivots))
    write_index(folder, names)
    return count


def _file(shard: str) -> str:
    return f"{shard}.safetensors"
