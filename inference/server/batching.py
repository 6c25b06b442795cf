"""Dynamic micro-batching: one thread works on the requests of many callers in batches, from a bounded queue."""

from __future__ import annotations

import contextlib
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Group = TypeVar("Group", bound=Hashable)
Job = TypeVar("Job")
Result = TypeVar("Result")

SHARE = 0.25
"""Largest part of a request's time that a shared batch may take, so that a request that just missed the batch can still
be answered in time."""
MEASURED = 5
"""Batches whose median gives the expected seconds per job, so that a slow start is soon forgotten."""
BELIEVED_S = 60.0
"""Seconds for which a measurement is valid. After so long without a batch, the next request is accepted again."""
SLACK = 1.25
"""Factor between measured and expected seconds; without it, the last requests accepted are often slightly late."""


class Refused(Exception):
    """A request that was not started. It may be tried again in `retry_after_s` whole seconds."""

    def __init__(self, reason: str, wait_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(f"{reason}; try again in {self.retry_after_s} s")


class QueueFull(Refused):
    """The queue has no room for the request."""


class NoTime(Refused):
    """The request cannot be finished before its deadline."""


class Pace:
    """Expected seconds per job, from the last batches. Times are on time.monotonic's clock."""

    def __init__(self) -> None:
        self._seconds_per_job: deque[float] = deque(maxlen=MEASURED)
        self._noted = -math.inf

    def note(self, jobs: int, began: float, ended: float) -> None:
        """Record the times of a batch."""
        self._noted = ended
        self._seconds_per_job.append((ended - began) / jobs)

    def expected_s(self, now: float) -> float:
        """Return the expected seconds per job, 0 if unknown."""
        known = self._seconds_per_job and now - self._noted <= BELIEVED_S
        return SLACK * statistics.median_low(self._seconds_per_job) if known else 0.0


@dataclass(eq=False)
class _Request(Generic[Group, Job, Result]):
    """The jobs of one caller."""

    group: Group
    jobs: Sequence[Job]
    arrived: float
    """On time.monotonic's clock."""
    deadline: float = math.inf
    """On the same clock. A request that cannot be finished by then is not started."""
    taken: int = 0
    """Number of jobs that have left the queue."""
    results: list[Result] = field(default_factory=list)
    """Results of the finished jobs."""
    answer: Future[list[Result]] = field(default_factory=Future)

    @property
    def left(self) -> int:
        """Number of jobs in the queue."""
        return len(self.jobs) - self.taken


Part = tuple[_Request[Group, Job, Result], Sequence[Job]]
"""A request and those of its jobs that are in a batch."""


class Batcher(Generic[Group, Job, Result]):
    """Collects requests and works on those of the same group together, starting with the oldest request's group.

    A batch takes whole requests as long as they fit. A request larger than a batch takes several, and goes to the end
    of the queue after each, so that small requests do not wait for all of it.

    Requests with deadlines share a batch only if the pace so far lets all of them be answered in time. A request that
    can no longer meet its deadline is dropped.

    Args:
        work: Returns one result per job of a group. One thread calls it, never concurrently.
        max_batch: Largest total weight of a batch; a batch has at least one job.
        max_wait_ms: How long a batch that is not full waits for more jobs, counted from its first request.
        queue_size: Most jobs that may wait.
        weight: Returns the weight of each job of a group.
        on_batch: Called with the number of jobs of each batch.
    """

    def __init__(
        self,
        work: Callable[[Group, Sequence[Job]], Sequence[Result]],
        max_batch: int,
        max_wait_ms: float,
        queue_size: int,
        *,
        weight: Callable[[Group], int] = lambda group: 1,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._max_wait_s = max_wait_ms / 1000
        self._queue_size = queue_size
        self._weight = weight
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._waiting: dict[_Request[Group, Job, Result], None] = {}
        """In order of arrival, or of the last batch that took a part of them."""
        self._jobs = 0
        self._in_work, self._began = 0, 0.0
        """Jobs of the current batch, and when it began."""
        self._pace = Pace()
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of waiting jobs, without those of the current batch."""
        return self._jobs

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the thread; None while it works."""
        return self._failure

    def submit(self, group: Group, jobs: Sequence[Job], time_s: float = math.inf) -> Future[list[Result]]:
        """Queue jobs and return the future of their results. Cancelling it takes the waiting jobs out of the queue.

        Args:
            time_s: Seconds in which the results are needed.

        Raises:
            QueueFull: The jobs do not fit into the queue.
            NoTime: They cannot be finished in time. The future raises it if that turns out later.
            RuntimeError: The batcher is closed or its thread has died. In the latter case every waiting future raises
                it too.
        """
        now = time.monotonic()
        request: _Request[Group, Job, Result] = _Request(group, jobs, now, now + time_s)
        with self._changed:
            if self._failure is not None:
                raise RuntimeError("the batcher has died") from self._failure
            if self._closed:
                raise RuntimeError("the batcher is closed")
            if self._jobs + len(jobs) > self._queue_size:
                raise QueueFull("the queue is full", self._jobs * self._pace.expected_s(now))
            self._waiting[request] = None
            self._jobs += len(jobs)
            if time_s < math.inf:
                in_work_s = max(0.0, self._began + self._in_work * self._pace.expected_s(now) - now)
                if (late := self._late(in_work_s, now).get(request)) is not None:
                    self._drop(request)
                    raise late
            self._changed.notify()
        request.answer.add_done_callback(lambda _: self._drop(request))
        return request.answer

    def close(self) -> None:
        """Finish all waiting jobs, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop(self, request: _Request[Group, Job, Result]) -> None:
        with self._changed:
            if request in self._waiting:
                del self._waiting[request]
                self._jobs -= request.left

    def _fail(self, request: _Request[Group, Job, Result], error: BaseException) -> None:
        self._drop(request)
        with contextlib.suppress(InvalidStateError):  # already answered or cancelled
            request.answer.set_exception(error)

    def _run(self) -> None:
        batch: list[Part[Group, Job, Result]] = []
        try:
            while batch := self._next():
                self._answer(batch)
        except BaseException as error:
            with self._changed:
                self._failure = error
                left = [*(request for request, _ in batch), *self._waiting]
            for request in left:
                died = RuntimeError("the batcher has died")
                died.__cause__ = error
                self._fail(request, died)
            raise

    def _most(self, group: Group) -> int:
        """Return the most jobs of a group in one batch."""
        return max(1, self._max_batch // self._weight(group))

    def _late(self, in_work_s: float, now: float) -> dict[_Request[Group, Job, Result], NoTime]:
        """Return the waiting requests that cannot be finished in time, with their errors.

        Args:
            in_work_s: Seconds until the next batch begins.
        """
        job_s, begins_s = self._pace.expected_s(now), in_work_s
        late: dict[_Request[Group, Job, Result], str] = {}
        for request in self._waiting:
            done_s, left_s = begins_s + request.left * job_s, request.deadline - now
            if done_s < left_s:
                begins_s += min(request.left, self._most(request.group)) * job_s  # it is served before the next request
            else:
                late[request] = f"answering would take {done_s:.1f} seconds, and only {max(0.0, left_s):.1f} are left"
        return {request: NoTime(reason, begins_s) for request, reason in late.items()}

    def _next(self) -> list[Part[Group, Job, Result]]:
        """Wait for the next batch and take it out of the queue; empty once the batcher is closed and has no jobs."""
        with self._changed:
            self._in_work = 0
            while True:
                for request, late in self._late(0.0, time.monotonic()).items():
                    self._fail(request, late)
                first = next(iter(self._waiting), None)
                if first is None and self._closed:
                    return []
                if first is None:
                    self._changed.wait()
                    continue
                most = self._most(first.group)
                fitting, size = self._fitting(first.group, most)
                left_s = first.arrived + self._max_wait_s - time.monotonic()
                if size < most and left_s > 0 and not self._closed:
                    self._changed.wait(left_s)
                    continue
                batch = [(request, self._take(request, most)) for request in fitting]
                self._in_work, self._began = sum(len(jobs) for _, jobs in batch), time.monotonic()
                return batch

    def _fitting(self, group: Group, most: int) -> tuple[list[_Request[Group, Job, Result]], int]:
        """Return the first requests of a group that fit into a batch of `most` jobs, and the number of their jobs.

        The first request always fits.
        """
        fitting: list[_Request[Group, Job, Result]] = []
        size, time_s, now = 0, math.inf, time.monotonic()
        job_s = self._pace.expected_s(now) or math.inf  # while unknown, requests with a deadline share no batch
        for request in self._waiting:
            if request.group == group:
                together = size + request.left
                time_s = min(time_s, request.deadline - now, SHARE * (request.deadline - request.arrived))
                if fitting and (together > most or together * job_s > time_s):
                    break
                fitting.append(request)
                size = together
        return fitting, size

    def _take(self, request: _Request[Group, Job, Result], most: int) -> Sequence[Job]:
        """Take up to `most` jobs of a request out of the queue; a request with jobs left goes to the end."""
        jobs = request.jobs[request.taken : request.taken + most]
        del self._waiting[request]
        request.taken += len(jobs)
        self._jobs -= len(jobs)
        if request.left:
            self._waiting[request] = None
        return jobs

    def _answer(self, batch: list[Part[Group, Job, Result]]) -> None:
        """Answer the requests of a batch; if the work fails, each on its own, so that one cannot fail the others."""
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
        began = time.monotonic()
        results = list(self._work(batch[0][0].group, wanted))
        with self._changed:
            self._pace.note(len(wanted), began, time.monotonic())
        if len(results) != len(wanted):
            raise RuntimeError(f"work: expected {len(wanted)} results, got {len(results)}")
        start = 0
        for request, jobs in batch:
            request.results += results[start : start + len(jobs)]
            start += len(jobs)
            if len(request.results) == len(request.jobs) and request.answer.set_running_or_notify_cancel():
                request.answer.set_result(request.results)
