"""Drawing tokens with one random number each: against cases worked by hand and an independent reference."""

from __future__ import annotations

import bisect
import itertools
import math

import pytest
import torch

from prip.decoding.sampling import BLOCK, drawn, inverse_cumulative, likeliest

NONE = -math.inf


def test_the_first_token_whose_cumulative_probability_exceeds_the_number() -> None:
    """Probabilities 1/2, 0, 1/4, 1/4: tokens end at .5, .75 and 1."""
    scores = torch.tensor([math.log(2.0), NONE, 0.0, 0.0]).expand(7, -1)
    numbers = torch.tensor([0.0, 0.25, 0.499, 0.5, 0.749, 0.75, 0.999], dtype=torch.float64)
    assert inverse_cumulative(scores, numbers).tolist() == [0, 0, 0, 2, 2, 3, 3]


def plain(scores: list[float], number: float) -> int:
    """The same in plain Python, with sums that lose nothing."""
    highest = max(scores)
    sums = list(itertools.accumulate(math.exp(score - highest) for score in scores))
    return bisect.bisect_right(sums, number * sums[-1])


@pytest.mark.parametrize("size", [1, 5, BLOCK, BLOCK + 1, 3 * BLOCK - 1, 5000])
def test_as_a_plain_search_finds_it(size: int) -> None:
    source = torch.Generator().manual_seed(size)
    scores = 4 * torch.randn(40, size, generator=source)
    scores[torch.rand(scores.shape, generator=source) < 0.5] = NONE
    scores[:, -1] = 0.0
    numbers = torch.rand(40, generator=source, dtype=torch.float64)
    expected = [plain(row, number) for row, number in zip(scores.tolist(), numbers.tolist(), strict=True)]
    assert inverse_cumulative(scores, numbers).tolist() == expected


def test_a_token_that_may_not_be_chosen_is_never_drawn() -> None:
    """Not at the ends of the interval either, nor at the end of a block."""
    most = torch.nextafter(torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64))
    numbers = torch.tensor([0.0, most, 0.5], dtype=torch.float64)
    for allowed in ([0], [BLOCK - 1], [BLOCK], [3, 2 * BLOCK], [2 * BLOCK + 9]):
        scores = torch.full((3, 2 * BLOCK + 10), NONE)
        scores[:, allowed] = torch.tensor([-30.0, 8.0])[: len(allowed)]
        assert set(inverse_cumulative(scores, numbers).tolist()) <= set(allowed)
    assert inverse_cumulative(torch.full((3, 10), NONE), numbers).tolist() == [-1, -1, -1]


def test_a_row_does_not_depend_on_its_batch() -> None:
    scores = torch.randn(64, 32000, generator=torch.Generator().manual_seed(0))
    numbers = torch.rand(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = inverse_cumulative(scores, numbers)
    alone = torch.cat([inverse_cumulative(scores[row : row + 1], numbers[row : row + 1]) for row in range(64)])
    assert alone.equal(together)


def test_draws_follow_the_softmax_without_replacement() -> None:
    """Pairs of different tokens from probabilities .5, .3, .2: p(a) p(b) / (1 - p(a))."""
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    numbers = torch.rand(40000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = drawn(probabilities.log().expand(40000, -1).clone(), numbers, torch.ones(40000, dtype=torch.bool))
    for first, second in itertools.permutations(range(3), 2):
        expected = probabilities[first] * probabilities[second] / (1 - probabilities[first])
        share = (pairs == torch.tensor([first, second])).all(dim=1).float().mean()
        assert share == pytest.approx(expected.item(), abs=0.01)


def test_further_tokens_only_where_they_are_needed() -> None:
    """The first token of a row is the same either way; a row with two tokens gives no third."""
    scores = torch.tensor([[0.0, 1.0, NONE], [0.0, 1.0, NONE]])
    numbers = torch.tensor([[0.9, 0.5, 0.5]] * 2, dtype=torch.float64)
    assert drawn(scores, numbers, torch.tensor([True, False])).tolist() == [[1, 0, -1], [1, -1, -1]]


def test_next_to_temperature_0_the_draws_are_the_likeliest() -> None:
    scores = torch.randn(8, 300, generator=torch.Generator().manual_seed(2)) / 1e-6
    numbers = torch.rand(8, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert drawn(scores.clone(), numbers, torch.ones(8, dtype=torch.bool)).equal(likeliest(scores, 4))
