"""Dynamic micro-batching: what many callers wait for is worked on together, by one thread, from a bounded queue."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Group = TypeVar("Group", bound=Hashable)
Job = TypeVar("Job")
Result = TypeVar("Result")


class QueueFull(Exception):
    """No more can wait; `retry_after_s`, whole seconds, is when there may be room again."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(eq=False)
class _Request(Generic[Group, Job, Result]):
    """Jobs that one caller waits for."""

    group: Group
    jobs: Sequence[Job]
    came: float
    """On time.monotonic's clock."""
    taken: int = 0
    """How many of the jobs have left the queue."""
    results: list[Result] = field(default_factory=list)
    """Of the jobs that are done."""
    answer: Future[list[Result]] = field(default_factory=Future)

    @property
    def left(self) -> int:
        """Jobs that are in the queue."""
        return len(self.jobs) - self.taken


Part = tuple[_Request[Group, Job, Result], Sequence[Job]]
"""Jobs of a request that are in a batch."""


class Batcher(Generic[Group, Job, Result]):
    """Collects requests and works on those of the same group together, the oldest request's group first.

    A batch takes whole requests as long as they fit. A request that is larger than a batch takes one after the other,
    and stands at the end of the queue again behind each, so that small ones do not wait for all of it.
    """

    def __init__(
        self,
        work: Callable[[Group, Sequence[Job]], Sequence[Result]],
        max_batch: int,
        max_wait_ms: float,
        queue_size: int,
        weight: Callable[[Group], int] = lambda group: 1,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """work: returns one result a job of a group; it is called by one thread, never twice at a time. max_batch: the
        weight of a batch, which has at least one job. max_wait_ms: how long a batch that is not full waits for more,
        from its first request on. queue_size: jobs that may wait. weight: of each job of a group. on_batch: is told the
        number of jobs of each batch.
        """
        self._work = work
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._queue_size = queue_size
        self._weight = weight
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: dict[_Request[Group, Job, Result], None] = {}
        """The oldest, or those that took part in a batch the longest time ago, first."""
        self._jobs = 0
        self._seconds_per_job = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait, those that are being worked on left out."""
        return self._jobs

    def submit(self, group: Group, jobs: Sequence[Job]) -> Future[list[Result]]:
        """Return the future of the jobs' results. To cancel it takes what is left of the request out of the queue.

        Raises QueueFull when they do not fit into the queue, RuntimeError behind `close`.
        """
        request: _Request[Group, Job, Result] = _Request(group, jobs, time.monotonic())
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if self._jobs + len(jobs) > self._queue_size:
                raise QueueFull(max(1, math.ceil(self._jobs * self._seconds_per_job)))
            self._waiting[request] = None
            self._jobs += len(jobs)
            self._changed.notify()
        request.answer.add_done_callback(lambda _: self._drop(request))
        return request.answer

    def close(self) -> None:
        """Finish all that waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, request: _Request[Group, Job, Result]) -> None:
        with self._changed:
            if request in self._waiting:
                del self._waiting[request]
                self._jobs -= request.left

    def _run(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            self._answer(batch)
            spent = (time.monotonic() - began) / sum(len(jobs) for _, jobs in batch)
            self._seconds_per_job += 0.2 * (spent - self._seconds_per_job)

    def _next(self) -> list[Part[Group, Job, Result]]:
        """Wait for the next batch and take it out of the queue; none when it is closed and empty."""
        with self._changed:
            while True:
                first = next(iter(self._waiting), None)
                if first is None and self._closed:
                    return []
                if first is None:
                    self._changed.wait()
                    continue
                most = max(1, self._max_batch // self._weight(first.group))
                fitting, size = self._fitting(first.group, most)
                left_s = first.came + self._max_wait_s - time.monotonic()
                if size < most and left_s > 0 and not self._closed:
                    self._changed.wait(left_s)
                    continue
                return [(request, self._take(request, most)) for request in fitting]

    def _fitting(self, group: Group, most: int) -> tuple[list[_Request[Group, Job, Result]], int]:
        """Return the first requests of a group that fit into a batch of `most` jobs, and how many jobs they have left.

        One that is larger fits if it is the first."""
        fitting: list[_Request[Group, Job, Result]] = []
        size = 0
        for request in self._waiting:
            if request.group == group:
                if fitting and size + request.left > most:
                    break
                fitting.append(request)
                size += request.left
        return fitting, size

    def _take(self, request: _Request[Group, Job, Result], most: int) -> Sequence[Job]:
        """Take up to `most` jobs of a request out of the queue; with what is left it goes to the end."""
        jobs = request.jobs[request.taken : request.taken + most]
        del self._waiting[request]
        request.taken += len(jobs)
        self._jobs -= len(jobs)
        if request.left:
            self._waiting[request] = None
        return jobs

    def _answer(self, batch: list[Part[Group, Job, Result]]) -> None:
        """Work, and give each request its results; where that fails, each alone, so that one spoils no other."""
        batch = [(request, jobs) for request, jobs in batch if not request.answer.cancelled()]
        if not batch:
            return
        try:
            self._answer_together(batch)
        except Exception:
            for part in batch:
                try:
                    self._answer_together([part])
                except Exception as error:
                    request, _ = part
                    if request.answer.set_running_or_notify_cancel():
                        request.answer.set_exception(error)
                    self._drop(request)

    def _answer_together(self, batch: list[Part[Group, Job, Result]]) -> None:
        wanted = [job for _, jobs in batch for job in jobs]
        self._on_batch(len(wanted))
        results = list(self._work(batch[0][0].group, wanted))
        if len(results) != len(wanted):
            raise RuntimeError(f"{len(results)} results came of {len(wanted)} jobs")
        start = 0
        for request, jobs in batch:
            request.results += results[start : start + len(jobs)]
            start += len(jobs)
            if len(request.results) == len(request.jobs) and request.answer.set_running_or_notify_cancel():
                request.answer.set_result(request.results)
