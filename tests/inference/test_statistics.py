"""The statistics of evaluation, against numbers worked by hand and against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from prip.inference.evaluation.statistics import (
    cluster_means,
    correlation,
    group_means,
    mean_difference,
    ratio_of_means,
    resampling_weights,
)


def test_group_means_by_hand() -> None:
    means, order = group_means(np.array([1.0, 2.0, 6.0, 4.0]), ["b", "a", "b", "a"])
    assert order == ["b", "a"]
    assert means.tolist() == [3.5, 3.0]
    with pytest.raises(ValueError, match="wanted one for each of 2 values, got 1"):
        group_means(np.zeros(2), ["a"])


def test_a_combination_counts_once_however_many_phrasings_it_has() -> None:
    values = np.array([0.0, 1.0, 2.0, 7.0, 10.0])
    combinations = ["cat/beach", "cat/beach", "cat/beach", "cat/city", "dog/city"]
    means = cluster_means(values, combinations, ["cat", "cat", "cat", "cat", "dog"])
    assert means.tolist() == [4.0, 10.0]  # (mean(0, 1, 2) + 7) / 2, and 10


def test_resampling_weights_are_shares_of_draws_with_replacement() -> None:
    weights = resampling_weights(5, 20_000, seed=3)
    assert weights.shape == (20_000, 5)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    counts = weights[:, 0] * 5
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    np.testing.assert_allclose(counts.mean(), 1, atol=0.03)
    np.testing.assert_allclose(counts.var(), 5 * (1 / 5) * (4 / 5), atol=0.03)
    np.testing.assert_array_equal(weights, resampling_weights(5, 20_000, seed=3))


def test_mean_difference_by_hand() -> None:
    weights = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.0, 1.0]])
    found = mean_difference(np.array([-1.0, 3.0]), weights)  # draws -1, 1, 1, 3
    assert found.value == 1.0
    assert (found.low, found.high) == pytest.approx((-1 + 0.075 * 2, 3 - 0.075 * 2))
    assert found.p_value == pytest.approx(2 * (1 + 1) / 5)
    assert mean_difference(np.zeros(2), weights).p_value == 1.0


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_interval_and_p_value_against_scipy(shift: float) -> None:
    differences = np.random.default_rng(0).normal(shift, 1, 60)
    found = mean_difference(differences, resampling_weights(60, 20_000, seed=1))
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    )
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.015)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.015)
    null = stats.ttest_1samp(differences, 0).pvalue
    assert found.p_value == pytest.approx(null, abs=0.02)
    assert found.p_value >= 2 / 20_001


def test_rejects_a_true_null_as_often_as_it_says() -> None:
    rng, weights = np.random.default_rng(5), resampling_weights(48, 2_000, seed=5)
    rejected = np.mean([mean_difference(rng.normal(0, 1, 48), weights).p_value < 0.05 for _ in range(1_000)])
    assert 0.03 < rejected < 0.085


def test_ratio_of_means_against_scipy() -> None:
    rng = np.random.default_rng(0)
    denominator = rng.normal(0.4, 0.1, 48)
    numerator = 0.8 * denominator + rng.normal(0, 0.05, 48)
    share, low, high = ratio_of_means(numerator, denominator, resampling_weights(48, 20_000, seed=1))
    theirs = stats.bootstrap(
        (numerator, denominator),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert share == pytest.approx(numerator.sum() / denominator.sum())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_a_share_of_nothing_is_no_number() -> None:
    weights = resampling_weights(3, 500, seed=0)
    assert ratio_of_means(np.ones(3), np.array([1.0, -1.0, -1.0]), weights) == (None, None, None)
    share, low, high = ratio_of_means(np.ones(3), np.array([3.0, -1.0, 1.0]), weights)
    assert (share, low, high) == (1.0, None, None)


def test_correlation() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    assert correlation(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert correlation(a, np.ones(50)) is None
