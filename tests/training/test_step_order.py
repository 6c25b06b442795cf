"""What stands in which batch: every example once a pass, however a step is shared out, and little padding by length."""

from __future__ import annotations

import random

import pytest

from prip.training.engine.step_order import StepOrder

LENGTHS = [random.Random(place).randint(5, 60) for place in range(96)]


def order(sorting: bool, batch_size: int = 8, accumulate: int = 1) -> StepOrder:
    return StepOrder(96, batch_size, accumulate, 3, "decoder", LENGTHS if sorting else ())


@pytest.mark.parametrize("sorting", [False, True])
def test_a_pass_takes_every_example_once(sorting: bool) -> None:
    steps = [order(sorting).examples(step, 1) for step in range(24)]
    assert sorted(place for step in steps[:12] for place in step) == list(range(96))
    assert sorted(place for step in steps[12:] for place in step) == list(range(96))
    assert steps[:12] != steps[12:]


@pytest.mark.parametrize("sorting", [False, True])
@pytest.mark.parametrize(("processes", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 1)])
def test_processes_and_batches_share_the_same_step(sorting: bool, processes: int, accumulate: int) -> None:
    shared = order(sorting, 8 // (processes * accumulate), accumulate)
    for step in (0, 5, 17):
        whole = order(sorting).examples(step, 1)
        assert shared.examples(step, processes) == whole
        shares = [
            whole[shared.share(part, process, processes)] for part in range(accumulate) for process in range(processes)
        ]
        assert sorted(place for share in shares for place in share) == sorted(whole)
        assert {len(share) for share in shares} == {8 // (processes * accumulate)}


def test_sorting_changes_no_step_only_its_order() -> None:
    for step in range(24):
        plain, by_length = order(False).examples(step, 1), order(True).examples(step, 1)
        assert set(plain) == set(by_length), "the examples of a step are chosen at random, whatever their lengths"
        assert [LENGTHS[place] for place in by_length] == sorted(LENGTHS[place] for place in plain)


def padding(sorting: bool, accumulate: int, processes: int = 2) -> float:
    """Returns the share of padding if in each batch all processes are as long as the longest."""
    places = tokens = 0
    batches = order(sorting, 16 // (processes * accumulate), accumulate)
    for step in range(6):
        examples = batches.examples(step, processes)
        for part in range(accumulate):
            shares = [examples[batches.share(part, process, processes)] for process in range(processes)]
            lengths = [LENGTHS[place] for share in shares for place in share]
            places, tokens = places + len(lengths) * max(lengths), tokens + sum(lengths)
    return 1 - tokens / places


def test_sorting_leaves_less_padding_in_the_batches_of_a_step() -> None:
    assert padding(True, 1) == pytest.approx(padding(False, 1)) and padding(True, 1) > 0.35
    assert padding(True, 4) < padding(True, 2) < padding(True, 1)
    assert padding(True, 8) < 0.15 < padding(False, 8)
