"""Dynamic micro-batching: what many callers wait for is worked on together, by one thread, from a bounded queue."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .pace import Pace

Group = TypeVar("Group", bound=Hashable)
Job = TypeVar("Job")
Result = TypeVar("Result")

SHARE = 0.25
"""Of a request's time: how long a batch may take that it shares with others, so that one that just missed it is not
late."""


class Refused(Exception):
    """What is not begun; `retry_after_s`, whole seconds, is when there may be room or time for it."""

    def __init__(self, reason: str, wait_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(wait_s))
        super().__init__(f"{reason}; try again in {self.retry_after_s} s")


class QueueFull(Refused):
    """No more can wait."""


class NoTime(Refused):
    """It could not be done before its deadline."""


@dataclass(eq=False)
class _Request(Generic[Group, Job, Result]):
    """Jobs that one caller waits for."""

    group: Group
    jobs: Sequence[Job]
    came: float
    """On time.monotonic's clock."""
    deadline: float = math.inf
    """On the same clock; what cannot be done until then is not begun."""
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

    Requests with a deadline share a batch as long as what jobs took before tells that it is good for all of them; one
    that can no longer be done in time is not gone on with.
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
        self._in_work, self._began = 0, 0.0
        """Jobs of the batch that is worked on, and since when."""
        self._pace = Pace()
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait, those that are being worked on left out."""
        return self._jobs

    @property
    def failure(self) -> BaseException | None:
        """What ended the thread, None as long as it works."""
        return self._failure

    def submit(self, group: Group, jobs: Sequence[Job], time_s: float = math.inf) -> Future[list[Result]]:
        """Return the future of the jobs' results. To cancel it takes what is left of the request out of the queue.

        time_s: seconds in which there must be a result. Raises QueueFull when the jobs do not fit into the queue,
        NoTime when they cannot be done in time, as the future does if that is seen later; RuntimeError behind `close`,
        or when the thread has died, as the future of all that waited does.
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

    def _fail(self, request: _Request[Group, Job, Result], error: BaseException) -> None:
        self._drop(request)
        with contextlib.suppress(InvalidStateError):  # it is answered, or given up
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
        """Return how many jobs of a group are in a batch at most."""
        return max(1, self._max_batch // self._weight(group))

    def _late(self, in_work_s: float, now: float) -> dict[_Request[Group, Job, Result], NoTime]:
        """Return what waits and cannot be done in time, with how it is refused. in_work_s: until the next batch."""
        job_s, begins_s = self._pace.expected_s(now), in_work_s
        late: dict[_Request[Group, Job, Result], str] = {}
        for request in self._waiting:
            done_s, left_s = begins_s + request.left * job_s, request.deadline - now
            if done_s < left_s:
                begins_s += min(request.left, self._most(request.group)) * job_s  # its turn before the next one's
            else:
                late[request] = f"it would take {done_s:.1f} seconds, and {max(0.0, left_s):.1f} are left"
        return {request: NoTime(reason, begins_s) for request, reason in late.items()}

    def _next(self) -> list[Part[Group, Job, Result]]:
        """Wait for the next batch and take it out of the queue; none when it is closed and empty."""
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
                left_s = first.came + self._max_wait_s - time.monotonic()
                if size < most and left_s > 0 and not self._closed:
                    self._changed.wait(left_s)
                    continue
                batch = [(request, self._take(request, most)) for request in fitting]
                self._in_work, self._began = sum(len(jobs) for _, jobs in batch), time.monotonic()
                return batch

    def _fitting(self, group: Group, most: int) -> tuple[list[_Request[Group, Job, Result]], int]:
        """Return the first requests of a group that fit into a batch of `most` jobs, and how many jobs they have left.

        One that is larger fits if it is the first."""
        fitting: list[_Request[Group, Job, Result]] = []
        size, time_s, now = 0, math.inf, time.monotonic()
        job_s = self._pace.expected_s(now) or math.inf  # the first one with a deadline tells what a job takes
        for request in self._waiting:
            if request.group == group:
                together = size + request.left
                time_s = min(time_s, request.deadline - now, SHARE * (request.deadline - request.came))
                if fitting and (together > most or together * job_s > time_s):
                    break
                fitting.append(request)
                size = together
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
        began = time.monotonic()
        results = list(self._work(batch[0][0].group, wanted))
        with self._changed:
            self._pace.note(len(wanted), began, time.monotonic())
        if len(results) != len(wanted):
            raise RuntimeError(f"{len(results)} results came of {len(wanted)} jobs")
        start = 0
        for request, jobs in batch:
            request.results += results[start : start + len(jobs)]
            start += len(jobs)
            if len(request.results) == len(request.jobs) and request.answer.set_running_or_notify_cancel():
                request.answer.set_result(request.results)
