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
class _Request(Generic[Group, Job]):
    """Jobs that one caller waits for."""

    group: Group
    jobs: Sequence[Job]
    came: float
    """On time.monotonic's clock."""
    answer: Future = field(default_factory=Future)


class Batcher(Generic[Group, Job, Result]):
    """Collects requests and works on those of the same group together, the oldest request's group first.

    A batch takes whole requests, of up to `max_batch` jobs together; a request of more has a batch of its own.
    """

    def __init__(
        self,
        work: Callable[[Group, Sequence[Job]], Sequence[Result]],
        max_batch: int,
        max_wait_ms: float,
        queue_size: int,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        """work: returns one result a job of a group; it is called by one thread, never twice at a time. max_wait_ms:
        how long a batch that is not full waits for more, from its first request on. queue_size: jobs that may wait.
        on_batch: is told the number of jobs of each batch.
        """
        self._work = work
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._queue_size = queue_size
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: dict[_Request[Group, Job], None] = {}
        """In the order in which they came."""
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
        """Return the future of the jobs' results. To cancel it takes the request out of the queue, before any work.

        Raises QueueFull when they do not fit into the queue, RuntimeError behind `close`.
        """
        request = _Request(group, jobs, time.monotonic())
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

    def _drop(self, request: _Request[Group, Job]) -> None:
        with self._changed:
            if request in self._waiting:
                del self._waiting[request]
                self._jobs -= len(request.jobs)

    def _run(self) -> None:
        while batch := self._next():
            began = time.monotonic()
            self._answer(batch)
            spent = (time.monotonic() - began) / sum(len(request.jobs) for request in batch)
            self._seconds_per_job += 0.2 * (spent - self._seconds_per_job)

    def _next(self) -> list[_Request[Group, Job]]:
        """Wait for the next batch and take it out of the queue; none when it is closed and empty."""
        with self._changed:
            while True:
                first = next(iter(self._waiting), None)
                if first is None and self._closed:
                    return []
                if first is None:
                    self._changed.wait()
                    continue
                batch, size = self._fitting(first.group)
                left = first.came + self._max_wait_s - time.monotonic()
                if size < self._max_batch and left > 0 and not self._closed:
                    self._changed.wait(left)
                    continue
                for request in batch:
                    del self._waiting[request]
                self._jobs -= size
                return batch

    def _fitting(self, group: Group) -> tuple[list[_Request[Group, Job]], int]:
        """Return the oldest requests of a group that fit into one batch, and how many jobs they have."""
        batch: list[_Request[Group, Job]] = []
        size = 0
        for request in self._waiting:
            if request.group == group:
                if batch and size + len(request.jobs) > self._max_batch:
                    break
                batch.append(request)
                size += len(request.jobs)
        return batch, size

    def _answer(self, batch: Sequence[_Request[Group, Job]]) -> None:
        """Work, and give each request its results; where that fails, each alone, so that one spoils no other."""
        wanted = [request for request in batch if request.answer.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            self._answer_together(wanted)
        except Exception:
            for request in wanted:
                try:
                    self._answer_together([request])
                except Exception as error:
                    request.answer.set_exception(error)

    def _answer_together(self, requests: Sequence[_Request[Group, Job]]) -> None:
        jobs = [job for request in requests for job in request.jobs]
        self._on_batch(len(jobs))
        results = list(self._work(requests[0].group, jobs))
        if len(results) != len(jobs):
            raise RuntimeError(f"{len(results)} results came of {len(jobs)} jobs")
        start = 0
        for request in requests:
            request.answer.set_result(results[start : start + len(request.jobs)])
            start += len(request.jobs)
