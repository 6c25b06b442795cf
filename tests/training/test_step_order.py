"""What stands in which batch: every example once a pass, however a step is shared out, and little padding by length."""

from __future__ import annotations

import random

import pytest

from prip.training.engine.step_order import StepOrder

LENGTHS = [random.Random(place).randint(5, 60) for place in range(96)]


def order(window: int, batch_size: int = 8, accumulate: int = 1) -> StepOrder:
    return StepOrder(96, batch_size, accumulate, 3, "decoder", window, LENGTHS)


@pytest.mark.parametrize("window", [0, 1, 4])
def test_a_pass_takes_every_example_once(window: int) -> None:
    steps = [order(window).examples(step, 1) for step in range(24)]
    assert sorted(place for step in steps[:12] for place in step) == list(range(96))
    assert sorted(place for step in steps[12:] for place in step) == list(range(96))
    assert steps[:12] != steps[12:]


@pytest.mark.parametrize("window", [0, 4])
@pytest.mark.parametrize(("processes", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_processes_and_batches_share_the_same_step(window: int, processes: int, accumulate: int) -> None:
    shared = order(window, 8 // (processes * accumulate), accumulate)
    for step in (0, 5, 17):
        whole = order(window).examples(step, 1)
        assert shared.examples(step, processes) == whole
        shares = [
            whole[shared.share(part, process, processes)] for part in range(accumulate) for process in range(processes)
        ]
        assert sorted(place for share in shares for place in share) == sorted(whole)
        assert {len(share) for share in shares} == {8 // (processes * accumulate)}


def test_a_step_does_not_depend_on_those_before_it() -> None:
    walked = order(4)
    steps = [walked.examples(step, 1) for step in range(12)]
    assert [order(4).examples(step, 1) for step in reversed(range(12))] == steps[::-1]


def padding(window: int) -> float:
    places = tokens = 0
    for step in range(12):
        own = [LENGTHS[place] for place in order(window).examples(step, 1)]
        places, tokens = places + len(own) * max(own), tokens + sum(own)
    return 1 - tokens / places


def test_buckets_leave_less_padding() -> None:
    assert padding(0) > 0.35
    assert padding(4) < padding(2) < padding(0)
    assert padding(12) < 0.08


def test_the_steps_of_a_window_are_not_in_order_of_length() -> None:
    longest = [max(LENGTHS[place] for place in order(12).examples(step, 1)) for step in range(12)]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)
