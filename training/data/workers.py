"""Jobs on many images, in this process or by Ray Data's actors, locally or on a cluster.

Each process makes one worker and calls it with one job after another. The result of a job depends on the job alone.
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
    """Images to process together."""

    name: str
    images: pd.DataFrame
    """image_name, part, and text if needed."""
    parts: Mapping[str, Part]
    """The images' parts, by name."""


def job_batches(job: Job, batch_size: int, bad: dict[int, str], threads: int) -> Iterator[ImageBatch]:
    """Yield the images of a job as `read_batches` does, with their indices in it."""
    names, parts = job.images["image_name"].tolist(), job.images["part"].tolist()
    with PartsReader(job.parts) as reader:
        for part in dict.fromkeys(parts):
            reader.open(part)
        yield from read_batches(
            lambda index: reader.read(parts[index], names[index]), len(names), batch_size, bad, threads
        )


class Workers(Protocol):
    """Context in which jobs run; `run` may be called several times."""

    start_seconds: float
    """Seconds so far to start processes and load what the workers need."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, make: Callable[[], Worker[Result]], jobs: Sequence[Job]) -> Iterator[tuple[str, Result]]:
        """Yield the name and result of each job when it is done, in any order."""


class ThisProcess:
    """Runs jobs one after another in this process."""

    def __init__(self) -> None:
        self.start_seconds = 0.0

    def __enter__(self) -> ThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, make: Callable[[], Worker[Result]], jobs: Sequence[Job]) -> Iterator[tuple[str, Result]]:
        """Yield the name and result of each job; no worker is made for no jobs."""
        if not jobs:
            return
        started = time.monotonic()
        worker = make()
        self.start_seconds += time.monotonic() - started
        for job in jobs:
            yield job.name, worker(job)


class RayWorkers:
    """Runs jobs with a pool of Ray Data's actors, each with its own worker, made once per run.

    Entering connects to the cluster, or starts Ray locally until the exit; a Ray that is already running is used and
    kept.
    """

    def __init__(self, address: str | None, count: int, num_cpus: float = 1.0, num_gpus: float = 0.0) -> None:
        """Set up `count` actors, each with num_cpus (and as many threads, rounded down, at least one) and num_gpus.

        `address` is that of a cluster, as for `ray.init`; None starts Ray locally.
        """
        self._address, self._count, self._num_cpus, self._num_gpus = address, count, num_cpus, num_gpus
        self._own = False
        self.start_seconds = 0.0

    def __enter__(self) -> RayWorkers:
        started = time.monotonic()
        self._connect()
        self.start_seconds += time.monotonic() - started
        return self

    def _connect(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray, data = require("ray", "ray"), require("ray.data", "ray")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        if ray.is_initialized():
            return
        local: dict[str, Any] = {}
        if self._address is None:  # one more CPU, for the tasks that pass jobs to the actors
            local = {"num_cpus": math.ceil(self._count * self._num_cpus) + 1, "include_dashboard": False}
        try:
            ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except Exception as error:  # Ray also raises bare Exceptions
            where = f"reached at {self._address}" if self._address else "started on this machine"
            raise PripError(f"ray: cannot be {where}: {type(error).__name__}: {error}") from error
        self._own = True

    def __exit__(self, *_: object) -> None:
        if self._own:
            require("ray", "ray").shutdown()
            self._own = False

    def run(self, make: Callable[[], Worker[Result]], jobs: Sequence[Job]) -> Iterator[tuple[str, Result]]:
        """Yield the name and result of each job. `make` must be picklable, with its modules installed on the
        cluster."""
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
        started = time.monotonic()
        for number, batch in enumerate(dataset.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0)):
            if not number:  # the time before the first job is that of starting the actors
                self.start_seconds += max(0.0, time.monotonic() - started - float(batch["seconds"][0]))
            yield str(batch["name"][0]), batch["result"][0]


class _Actor:
    """The callable of Ray Data: a worker on batches of one row."""

    def __init__(self, make: Callable[[], Worker[Any]]) -> None:
        self._worker = make()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        started = time.monotonic()
        job = batch["job"][0]
        result = np.empty(1, dtype=object)
        result[0] = self._worker(job)
        return {"name": np.array([job.name]), "result": result, "seconds": np.array([time.monotonic() - started])}
