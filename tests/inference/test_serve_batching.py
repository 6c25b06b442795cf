"""The Batcher: what shares a batch, what waits, what is dropped, what an error spoils."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from prip.inference.server.batching import Batcher, QueueFull


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
    batcher: Batcher[str, int, int] = Batcher(worker, max_batch=2, max_wait_ms=300, queue_size=10)
    began = time.monotonic()
    first = batcher.submit("a", [1])
    time.sleep(0.05)
    second = batcher.submit("a", [2])
    assert (first.result(20), second.result(20)) == ([2], [4])
    assert time.monotonic() - began < 0.25, "a full batch waits for nothing"
    began = time.monotonic()
    assert batcher.submit("a", [3]).result(20) == [6]
    assert time.monotonic() - began > 0.29
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
