"""Work on many images, cut into jobs: in this process, or by actors of Ray Data here or on a cluster.

A worker is made once for each process and called with one job after another. What a job gives does not depend on who
does it, or on the other jobs.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from prip.errors import PripError, require

from .images import ImageBatch, read_batches
from .parts import Part, PartsReader

Result = TypeVar("Result")
Worker = Callable[["Job"], Result]


@dataclass(frozen=True)
class Job:
    """Images that are worked on together."""

    name: str
    images: pd.DataFrame
    """image_name, part, and text where the work needs one."""
    parts: Mapping[str, Part]
    """The parts that the images lie in, by name."""


def job_batches(job: Job, batch_size: int, bad: dict[int, str], threads: int) -> Iterator[ImageBatch]:
    """Yields the images of a job as `read_batches` does, with their places in it."""
    names, parts = job.images["image_name"].tolist(), job.images["part"].tolist()
    with PartsReader(job.parts) as reader:
        for part in dict.fromkeys(parts):
            reader.open(part)
        yield from read_batches(
            lambda place: reader.read(parts[place], names[place]), len(names), batch_size, bad, threads
        )


class Workers(Protocol):
    """Whoever does the jobs: a context, inside which `run` may be called several times."""

    start_seconds: float
    """What it has taken so far until work began: to start Ray and its processes, and to load what a worker has."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, make: Callable[[], Worker[Result]], jobs: Sequence[Job]) -> Iterator[tuple[str, Result]]:
        """Yields the name of each job with its result, as soon as it is done, in any order."""


class ThisProcess:
    """Does the jobs one after another, in this process."""

    def __init__(self) -> None:
        self.start_seconds = 0.0

    def __enter__(self) -> ThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, make: Callable[[], Worker[Result]], jobs: Sequence[Job]) -> Iterator[tuple[str, Result]]:
        """Yields name and result of each job; makes no worker where there is no job."""
        if not jobs:
            return
        begun = time.monotonic()
        worker = make()
        self.start_seconds += time.monotonic() - begun
        for job in jobs:
            yield job.name, worker(job)


class RayWorkers:
    """Does the jobs with a pool of Ray Data's actors, each of which makes a worker of its own, once a run.

    As a context it connects to the cluster, or starts Ray on this machine and stops it at the exit; Ray that runs in
    this process already is used and left running.
    """

    def __init__(self, address: str | None, count: int, num_cpus: float = 1.0, num_gpus: float = 0.0) -> None:
        """address: of a cluster, as `ray.init` takes it; None starts Ray here. count: actors. num_cpus, num_gpus: what
        each of them is given; Ray lets it compute with as many threads as it has whole CPUs, or one."""
        self._address, self._count, self._num_cpus, self._num_gpus = address, count, num_cpus, num_gpus
        self._own = False
        self.start_seconds = 0.0

    def __enter__(self) -> RayWorkers:
        begun = time.monotonic()
        self._connect()
        self.start_seconds += time.monotonic() - begun
        return self

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray, data = require("ray", "ray"), require("ray.data", "ray")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        if ray.is_initialized():
            return
        local: dict[str, Any] = {}
        if self._address is None:  # one CPU more than the actors take, for the tasks that hand them their jobs
            local = {"num_cpus": math.ceil(self._count * self._num_cpus) + 1, "include_dashboard": False}
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except Exception as error:  # Ray raises bare Exceptions too
            where = f"reached at {self._address}" if self._address else "started on this machine"
            raise PripError(f"ray: it cannot be {where}: {type(error).__name__}: {error}") from error
        self._own = True

    def __exit__(self, *_: object) -> None:
        if self._own:
            require("ray", "ray").shutdown()
            self._own = False

    def run(self, make: Callable[[], Worker[Result]], jobs: Sequence[Job]) -> Iterator[tuple[str, Result]]:
        """Yields name and result of each job. `make` must be picklable, and its modules be installed on the cluster."""
        if not jobs:
            return
        data = require("ray.data", "ray")
        needs: dict[str, Any] = {"num_cpus": self._num_cpus}
        if self._num_gpus:
            needs["num_gpus"] = self._num_gpus
        pool = data.ActorPoolStrategy(size=min(self._count, len(jobs)))
        dataset = data.from_items([{"job": job} for job in jobs], override_num_blocks=len(jobs)).map_batches(
            _Actor, fn_constructor_args=(make,), batch_size=1, compute=pool, **needs
        )
        begun = time.monotonic()
        for number, batch in enumerate(dataset.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0)):
            if not number:  # all that came before the work on it was the start of the actors
                self.start_seconds += max(0.0, time.monotonic() - begun - float(batch["seconds"][0]))
            yield str(batch["name"][0]), batch["result"][0]


class _Actor:
    """What Ray Data calls: a worker behind columns of one row."""

    def __init__(self, make: Callable[[], Worker[Any]]) -> None:
        self._worker = make()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        begun = time.monotonic()
        job = batch["job"][0]
        result = np.empty(1, dtype=object)
        result[0] = self._worker(job)
        return {"name": np.array([job.name]), "result": result, "seconds": np.array([time.monotonic() - begun])}
