"""The Batcher: what shares a batch, what waits, what is dropped, what an error spoils."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from prip.inference.server import batching
from prip.inference.server.batching import BELIEVED_S, SLACK, Batcher, NoTime, Pace, QueueFull


class Worker:
    """Doubles numbers, notes its batches, and works only when it is let."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.let = threading.Event()
        self.entered = threading.Event()

    def __call__(self, group: str, jobs: Sequence[int]) -> list[int]:
        self.entered.set()
        assert self.let.wait(20)
        self.batches.append((group, list(jobs)))
        if 13 in jobs:
            raise ValueError("13 cannot be doubled")
        return [2 * job for job in jobs]


@contextmanager
def blocked(max_batch: int = 4, queue_size: int = 100, max_wait_ms: float = 0) -> Iterator[tuple[Worker, Batcher]]:
    """A Batcher whose worker is held within a first batch, so that what is submitted next waits."""
    worker = Worker()
    batcher: Batcher[str, int, int] = Batcher(worker, max_batch, max_wait_ms, queue_size)
    held = batcher.submit("held", [0])
    assert worker.entered.wait(20)
    yield worker, batcher
    worker.let.set()
    batcher.close()
    assert held.result(0) == [0]


def test_what_waits_is_worked_on_together_by_group_the_oldest_first() -> None:
    with blocked() as (worker, batcher):
        wanted = [("a", [1]), ("b", [2]), ("a", [3, 4]), ("b", [5]), ("a", [6, 7]), ("b", [8])]
        futures = [batcher.submit(group, jobs) for group, jobs in wanted]
        assert batcher.waiting == 8
        worker.let.set()
        for (_, jobs), future in zip(wanted, futures, strict=True):
            assert future.result(20) == [2 * job for job in jobs]
    assert worker.batches[1:] == [("a", [1, 3, 4]), ("b", [2, 5, 8]), ("a", [6, 7])]
    assert batcher.waiting == 0


def test_a_request_larger_than_a_batch_takes_turns_with_the_others() -> None:
    with blocked(max_batch=2) as (worker, batcher):
        wanted = [("a", [1, 2, 3, 4, 5]), ("b", [6]), ("a", [7]), ("a", [8]), ("b", [9, 10])]
        futures = [batcher.submit(group, jobs) for group, jobs in wanted]
        worker.let.set()
        for (_, jobs), future in zip(wanted, futures, strict=True):
            assert future.result(20) == [2 * job for job in jobs]
    turns = [("a", [1, 2]), ("b", [6]), ("a", [7, 8]), ("b", [9, 10]), ("a", [3, 4]), ("a", [5])]
    assert worker.batches[1:] == turns


def test_a_batch_has_a_weight_and_at_least_one_job() -> None:
    batches: list[list[int]] = []

    def work(group: int, jobs: Sequence[int]) -> list[int]:
        batches.append(list(jobs))
        return list(jobs)

    batcher: Batcher[int, int, int] = Batcher(work, 6, 0, 100, weight=lambda group: group)
    for group in (1, 3, 7):
        assert batcher.submit(group, [1, 2, 3, 4]).result(20) == [1, 2, 3, 4]
    batcher.close()
    assert batches == [[1, 2, 3, 4], [1, 2], [3, 4], [1], [2], [3], [4]]


def test_a_large_request_that_is_given_up_is_not_gone_on_with() -> None:
    began, let = threading.Semaphore(0), threading.Semaphore(0)
    done: list[int] = []

    def work(group: str, jobs: Sequence[int]) -> list[int]:
        began.release()
        assert let.acquire(timeout=20)
        done.extend(jobs)
        return list(jobs)

    batcher: Batcher[str, int, int] = Batcher(work, 2, 0, 100)
    large = batcher.submit("a", [1, 2, 3, 4])
    assert began.acquire(timeout=20) and batcher.waiting == 2
    assert large.cancel() and batcher.waiting == 0
    small = batcher.submit("a", [5])
    let.release(2)
    assert small.result(20) == [5]
    batcher.close()
    assert done == [1, 2, 5]


def test_a_batch_that_is_not_full_waits_for_more_but_not_longer_than_it_may() -> None:
    worker = Worker()
    worker.let.set()
    batcher: Batcher[str, int, int] = Batcher(worker, max_batch=2, max_wait_ms=1000, queue_size=10)
    began = time.monotonic()
    first = batcher.submit("a", [1])
    time.sleep(0.05)
    second = batcher.submit("a", [2])
    assert (first.result(20), second.result(20)) == ([2], [4])
    assert time.monotonic() - began < 0.9, "a full batch waits for nothing"
    began = time.monotonic()
    assert batcher.submit("a", [3]).result(20) == [6]
    assert time.monotonic() - began > 0.99
    batcher.close()
    assert worker.batches == [("a", [1, 2]), ("a", [3])]


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    with blocked(queue_size=3) as (_, batcher):
        batcher.submit("a", [1, 2])
        with pytest.raises(QueueFull) as refused:
            batcher.submit("a", [3, 4])
        assert refused.value.retry_after_s >= 1
        assert batcher.waiting == 2
        batcher.submit("a", [3])


def test_what_is_given_up_leaves_the_queue_before_it_costs_work() -> None:
    with blocked(queue_size=3) as (worker, batcher):
        given_up, kept = batcher.submit("a", [1, 2]), batcher.submit("a", [3])
        assert given_up.cancel()
        assert batcher.waiting == 1
        also_kept = batcher.submit("a", [4, 5])
        worker.let.set()
        assert (kept.result(20), also_kept.result(20)) == ([6], [8, 10])
    assert worker.batches[1:] == [("a", [3, 4, 5])]


def test_an_error_is_its_own_requests_alone() -> None:
    with blocked() as (worker, batcher):
        futures = [batcher.submit("a", [job]) for job in (1, 13, 2)]
        worker.let.set()
        assert futures[0].result(20) == [2] and futures[2].result(20) == [4]
        with pytest.raises(ValueError, match="13 cannot"):
            futures[1].result(20)
        assert batcher.submit("a", [5]).result(20) == [10], "the worker lives on"


def test_close_finishes_what_waits_and_takes_no_more() -> None:
    with blocked() as (worker, batcher):
        futures = [batcher.submit(group, [1]) for group in "abc"]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        worker.let.set()
        closing.join(20)
        assert [future.result(0) for future in futures] == [[2], [2], [2]]
        with pytest.raises(RuntimeError, match="closed"):
            batcher.submit("a", [1])


def test_on_batch_is_told_every_size() -> None:
    sizes: list[int] = []
    batcher: Batcher[str, int, int] = Batcher(lambda group, jobs: list(jobs), 8, 0, 10, on_batch=sizes.append)
    batcher.submit("a", [1, 2, 3]).result(20)
    batcher.submit("a", [1]).result(20)
    batcher.close()
    assert sizes == [3, 1]


def test_what_cannot_be_done_in_time_is_refused_and_what_can_is_done() -> None:
    done: list[int] = []

    def work(group: str, jobs: Sequence[int]) -> list[int]:
        time.sleep(0.1 * len(jobs))
        done.extend(jobs)
        return list(jobs)

    batcher: Batcher[str, int, int] = Batcher(work, 2, 0, 100)
    assert batcher.submit("a", [0], 20).result(20) == [0], "nothing is known yet"
    with pytest.raises(NoTime, match=r"would take \d\.\d seconds, and only 0\.[01] are left; try again in 1 s"):
        batcher.submit("a", [1], 0.05)
    taken, refused = [], 0
    for request in range(10):
        try:
            taken.append(batcher.submit("a", [2 * request, 2 * request + 1], 1.0))
        except NoTime:
            refused += 1
    assert 1 <= len(taken) <= 4 and refused == 10 - len(taken)
    assert batcher.submit("b", [20]).result(20) == [20], "what has no deadline waits"
    answered = [job for future in taken if future.exception(20) is None for job in future.result()]
    batcher.close()
    assert len(answered) >= 2 and done == [0, *answered, 20], "nothing is done for nobody"


def test_what_is_late_when_its_turn_comes_is_not_worked_on() -> None:
    with blocked() as (worker, batcher):
        late, kept = batcher.submit("a", [1, 2], 0.05), batcher.submit("a", [3], 20)
        time.sleep(0.1)
        worker.let.set()
        with pytest.raises(NoTime):
            late.result(20)
        assert kept.result(20) == [6] and batcher.waiting == 0
    assert worker.batches[1:] == [("a", [3])]


@pytest.mark.parametrize(
    ("times_s", "batches"),
    [
        ([390, 999, 999, 999], [[1, 2, 3], [4]]),  # four jobs take more than a quarter of 390 seconds
        ([999, 999, 110, 999], [[1, 2], [3], [4]]),
        ([60, 90, 120, 999], [[1], [2], [3], [4]]),
        ([9999, 9999, 9999, 9999], [[1, 2, 3, 4]]),
        ([math.inf] * 4, [[1, 2, 3, 4]]),
    ],
)
def test_requests_share_a_batch_that_is_good_for_all(times_s: list[float], batches: list[list[int]]) -> None:
    with blocked(max_batch=8) as (worker, batcher):
        batcher._pace.expected_s = lambda now: 25.0
        futures = [batcher.submit("a", [job], time_s) for job, time_s in enumerate(times_s, start=1)]
        worker.let.set()
        assert [future.result(20) for future in futures] == [[2], [4], [6], [8]]
    assert worker.batches[1:] == [("a", jobs) for jobs in batches]


def test_the_pace_is_that_of_the_batch_in_the_middle() -> None:
    pace = Pace()
    assert pace.expected_s(0.0) == 0
    for jobs, took_s in ((1, 60.0), (2, 4.0), (4, 12.0), (1, 1.0), (8, 8.0), (2, 4.0)):
        pace.note(jobs, 100.0, 100.0 + took_s)
    assert pace.expected_s(104.0) == SLACK * 2.0, "2, 3, 1, 1 and 2 seconds a job: the slow start is forgotten"
    assert pace.expected_s(104.0 + BELIEVED_S + 1) == 0


def test_as_long_as_nothing_is_known_what_has_a_deadline_shares_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BELIEVED_S", -1)
    with blocked(max_batch=8) as (worker, batcher):
        futures = [batcher.submit("a", [job], time_s) for job, time_s in ((1, 99), (2, math.inf), (3, math.inf))]
        worker.let.set()
        assert [future.result(20) for future in futures] == [[2], [4], [6]]
    assert worker.batches[1:] == [("a", [1]), ("a", [2, 3])]


def test_one_slow_start_does_not_refuse_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BELIEVED_S", 0.3)
    waits = iter([0.5, 0.0, 0.0])

    def work(group: str, jobs: Sequence[int]) -> list[int]:
        time.sleep(next(waits))
        return list(jobs)

    batcher: Batcher[str, int, int] = Batcher(work, 1, 0, 100)
    assert batcher.submit("a", [1], 20).result(20) == [1]
    with pytest.raises(NoTime):
        batcher.submit("a", [2], 0.4)
    time.sleep(0.35)
    assert batcher.submit("a", [3], 0.4).result(20) == [3], "it is old, and so tried anew"
    assert batcher.submit("a", [4], 0.4).result(20) == [4], "and the slow one is no longer believed"
    batcher.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_fails_all_that_waits_and_all_that_comes() -> None:
    batcher: Batcher[str, int, int] = Batcher(lambda group, jobs: list(jobs), 8, 1e14, 100)
    with pytest.raises(RuntimeError, match="has died") as told:
        batcher.submit("a", [1]).result(20)
    assert isinstance(told.value.__cause__, OverflowError) and batcher.failure is told.value.__cause__
    with pytest.raises(RuntimeError, match="has died"):
        batcher.submit("a", [1])
    assert batcher.waiting == 0
    batcher.close()

    let = threading.Event()

    def end(group: str, jobs: Sequence[int]) -> list[int]:
        assert let.wait(20)
        raise SystemExit

    ended: Batcher[str, int, int] = Batcher(end, 1, 0, 100)
    futures = [ended.submit("a", jobs) for jobs in ([1, 2], [3])]
    let.set()
    for future in futures:
        with pytest.raises(RuntimeError, match="has died"):
            future.result(20)
    ended.close()
