"""The statistics of evaluation, against numbers worked by hand and against SciPy."""

from __future__ import annotations

import inspect
import itertools
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from prip.inference.evaluation.analysis.diversity import cosine_kernel, mean_pairwise_distance, vendi_score
from prip.inference.evaluation.analysis.statistics import (
    cluster_means,
    correlation,
    estimate,
    exact_p,
    group_means,
    holm,
    paired_t,
    ratio_of_means,
    resampled_means,
    resampling_weights,
    sign_flip,
    two_way_means,
    wilcoxon,
    win_tie_loss,
)

SEEDED = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
"""The argument of stats.bootstrap for a generator, which SciPy 1.15 renamed."""


def test_group_means_by_hand() -> None:
    means, order = group_means(np.array([1.0, 2.0, 6.0, 4.0]), ["b", "a", "b", "a"])
    assert order == ["b", "a"]
    assert means.tolist() == [3.5, 3.0]
    with pytest.raises(ValueError, match="expected one for each of 2 values, got 1"):
        group_means(np.zeros(2), ["a"])


def test_a_unit_counts_once_however_many_phrasings_it_has() -> None:
    values = np.array([0.0, 1.0, 2.0, 7.0, 10.0])
    units = ["cat/beach", "cat/beach", "cat/beach", "cat/city", "dog/city"]
    means = cluster_means(values, units, ["cat", "cat", "cat", "cat", "dog"])
    assert means.tolist() == [4.0, 10.0]  # (mean(0, 1, 2) + 7) / 2, and 10


def test_what_is_missing_is_left_out_of_means_and_not_counted_as_0() -> None:
    values = np.array([1.0, np.nan, 5.0, np.nan])
    means = cluster_means(values, ["a/1", "a/1", "a/2", "b/1"], ["a", "a", "a", "b"])
    assert means[0] == 3.0 and np.isnan(means[1])  # (1 + 5) / 2


def weights_of(clusters: int, draws: int, seed: int) -> np.ndarray:
    return np.concatenate(list(resampling_weights(clusters, draws, seed)))


def test_resampling_weights_are_shares_of_draws_with_replacement() -> None:
    weights = weights_of(5, 20_000, seed=3)
    assert weights.shape == (20_000, 5)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    counts = weights[:, 0] * 5
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    np.testing.assert_allclose(counts.mean(), 1, atol=0.03)
    np.testing.assert_allclose(counts.var(), 5 * (1 / 5) * (4 / 5), atol=0.03)
    np.testing.assert_array_equal(weights, weights_of(5, 20_000, seed=3))


def test_resamples_come_in_blocks_of_bounded_size() -> None:
    blocks = list(resampling_weights(16_000, 400, seed=0))
    assert len(blocks) > 1 and sum(len(block) for block in blocks) == 400
    assert max(block.size for block in blocks) <= 1 << 21
    assert not np.array_equal(blocks[0][0], blocks[1][0]), "each block has draws of its own"


def test_resampled_means_of_columns_with_and_without_gaps() -> None:
    rng = np.random.default_rng(0)
    whole, gaps = rng.normal(size=(2, 30))
    gaps[[3, 7, 20]] = np.nan
    means = resampled_means(np.stack([whole, gaps, np.full(30, np.nan)], axis=1), 500, seed=4)
    np.testing.assert_allclose(means[:, 0], weights_of(30, 500, 4) @ whole, atol=1e-12)
    np.testing.assert_allclose(means[:, 1], weights_of(27, 500, 4) @ gaps[~np.isnan(gaps)], atol=1e-12)
    assert np.isnan(means[:, 2]).all()


def test_estimate_by_hand() -> None:
    found = estimate(np.array([-1.0, 3.0, np.nan]), np.array([-1.0, 1.0, 1.0, 3.0]))
    assert found.value == 1.0
    assert (found.low, found.high) == pytest.approx((-1 + 0.075 * 2, 3 - 0.075 * 2))
    assert found.p_value == pytest.approx(2 * (1 + 1) / 5)
    assert estimate(np.zeros(2), np.zeros(4)).p_value == 1.0


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_interval_and_p_value_against_scipy(shift: float) -> None:
    differences = np.random.default_rng(0).normal(shift, 1, 60)
    found = estimate(differences, resampled_means(differences[:, None], 20_000, seed=1)[:, 0])
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", **{SEEDED: np.random.default_rng(2)}
    )
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.015)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.015)
    null = stats.ttest_1samp(differences, 0).pvalue
    assert found.p_value == pytest.approx(null, abs=0.02)
    assert found.p_value >= 2 / 20_001


def test_rejects_a_true_null_as_often_as_it_says() -> None:
    columns = np.random.default_rng(5).normal(0, 1, (48, 1_000))
    draws = resampled_means(columns, 2_000, seed=5)
    rejected = np.mean([estimate(own, drawn).p_value < 0.05 for own, drawn in zip(columns.T, draws.T, strict=True)])
    assert 0.03 < rejected < 0.085


def test_paired_tests_against_scipy_on_both_sides() -> None:
    before, after = np.random.default_rng(1).normal(size=(2, 40))
    after += 0.3
    assert paired_t(after - before) == pytest.approx(stats.ttest_rel(after, before).pvalue, rel=1e-12)
    assert wilcoxon(after - before) == pytest.approx(stats.wilcoxon(after, before).pvalue, rel=1e-12)
    with_zeros = np.concatenate([after - before, np.zeros(9)])
    assert wilcoxon(with_zeros) == wilcoxon(after - before), "Wilcoxon leaves out what did not move"


@pytest.mark.parametrize(
    ("sums", "p_value"),
    [
        ([5.0], 1.0),  # +5 and -5 are equally far from 0
        ([1.0, 2.0], 2 / 4),  # totals 3, -1, 1, -3
        ([1.0, -2.0], 4 / 4),  # the observed total -1 is the nearest to 0
        ([1.0, 2.0, 4.0], 2 / 8),
        ([-1.0, 2.0, 4.0], 4 / 8),  # totals 7, 5, 3, 1 and their opposites; 5 observed
        ([1.0, 1.0, 1.0, -1.0], 10 / 16),  # |total| 4 twice, 2 eight times; 2 observed
        ([1.0, 2.0, 0.0], 4 / 8),  # a cluster of 0 doubles every pattern
        ([0.0, 0.0], 1.0),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 2 / 64),
        ([0.1, 0.2, -0.3], 1.0),  # equal up to rounding
    ],
)
def test_sign_flips_by_hand(sums: list[float], p_value: float) -> None:
    assert sign_flip(np.array(sums)) == p_value
    assert sign_flip(-np.array(sums)) == p_value


@pytest.mark.parametrize("clusters", [2, 5, 9, 13])
def test_sign_flips_against_scipy_and_pattern_by_pattern(clusters: int) -> None:
    sums = np.random.default_rng(clusters).normal(0.4, 1, clusters)
    theirs = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    totals = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=clusters)]
    by_pattern = sum(total >= abs(sums.sum()) - 1e-9 for total in totals) / 2**clusters
    assert sign_flip(sums) == pytest.approx(theirs, rel=1e-12) == pytest.approx(by_pattern, rel=1e-12)


def test_sign_flips_of_the_most_clusters_and_of_too_many() -> None:
    assert sign_flip(np.ones(19)) == 2 / 2**19
    assert exact_p(np.ones(19)) == 2 / 2**19 and exact_p(np.ones(20)) is None
    for wrong in (0, 20):
        with pytest.raises(ValueError, match=f"expected 1 to 19 clusters, got {wrong}"):
            sign_flip(np.ones(wrong))


@pytest.mark.parametrize("differences", [[], [0.5], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
def test_what_does_not_vary_is_no_evidence_and_no_warning(differences: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert paired_t(np.array(differences)) == 1.0
        expected = 1.0 if not any(differences) else 2 / 2 ** len(differences)
        assert wilcoxon(np.array(differences)) == pytest.approx(expected)


def test_win_tie_loss_by_hand() -> None:
    assert win_tie_loss(np.array([0.2, 1e-7, -1e-7, -0.4, 0.1])) == (0.4, 0.4, 0.2)
    assert win_tie_loss(np.array([0.2, 0.05, -0.05, -0.4]), tie=0.1) == (0.25, 0.5, 0.25)


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, and none below a smaller one's
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []


def test_holm_rejects_what_the_stepwise_rule_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = (rng.uniform(size=12) ** 3).tolist()
        level = float(rng.uniform(0.01, 0.3))
        rejected = set()
        for rank, place in enumerate(np.argsort(p_values)):  # reject while p <= level / (m - rank), then stop
            if p_values[place] > level / (len(p_values) - rank):
                break
            rejected.add(int(place))
        assert {place for place, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_ratio_of_means_against_scipy() -> None:
    rng = np.random.default_rng(0)
    denominator = rng.normal(0.4, 0.1, 48)
    numerator = 0.8 * denominator + rng.normal(0, 0.05, 48)
    share, low, high = ratio_of_means(numerator, denominator, 20_000, seed=1)
    theirs = stats.bootstrap(
        (numerator, denominator),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        **{SEEDED: np.random.default_rng(2)},
    ).confidence_interval
    assert share == pytest.approx(numerator.sum() / denominator.sum())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_a_share_of_nothing_is_no_number() -> None:
    assert ratio_of_means(np.ones(3), np.array([1.0, -1.0, -1.0]), 500, seed=0) == (None, None, None)
    share, low, high = ratio_of_means(np.ones(3), np.array([3.0, -1.0, 1.0]), 500, seed=0)
    assert (share, low, high) == (1.0, None, None)


def test_correlation() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    assert correlation(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert correlation(a, np.ones(50)) is None


def test_diversity_of_images_that_are_alike_and_of_such_as_are_not() -> None:
    alike, apart = np.tile([[3.0, 4.0, 0.0]], (5, 1)), 7 * np.eye(5)
    assert vendi_score(alike) == pytest.approx(1.0) and mean_pairwise_distance(alike) == pytest.approx(0.0)
    assert vendi_score(apart) == pytest.approx(5.0) and mean_pairwise_distance(apart) == pytest.approx(1.0)
    assert math.isnan(mean_pairwise_distance(apart[:1])) and math.isnan(vendi_score(apart[:0]))
    assert vendi_score(apart[:1]) == pytest.approx(1.0)


def test_diversity_of_two_groups_by_hand() -> None:
    groups = np.repeat(np.eye(2), [3, 1], axis=0)  # eigenvalues 3/4 and 1/4
    assert vendi_score(groups) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert mean_pairwise_distance(groups) == pytest.approx(3 / 6)  # of six pairs, three are apart
    assert vendi_score(np.repeat(np.eye(2), 4, axis=0)) == pytest.approx(2.0)


def test_diversity_by_pairs_one_by_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for i, a in enumerate(vectors) for b in vectors[:i]]
    assert mean_pairwise_distance(vectors) == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    singular = np.linalg.svd(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), compute_uv=False) ** 2 / 6
    assert vendi_score(vectors) == pytest.approx(math.exp(stats.entropy(singular)), rel=1e-6)
    with pytest.raises(ValueError, match="expected finite vectors other than 0"):
        cosine_kernel(np.zeros((2, 3)))


def test_two_way_resampling_adds_the_variance_of_seeds_to_that_of_clusters() -> None:
    by_seed, by_cluster = np.array([0.0, 1.0, 5.0]), np.random.default_rng(0).normal(2.0, 1.5, 30)
    draws = two_way_means(by_seed[:, None] + by_cluster, 40_000, 0)
    assert len(draws) == 40_000 and draws.mean() == pytest.approx(2.0 + by_cluster.mean(), abs=0.02)
    expected = by_seed.var() / 3 + by_cluster.var() / 30  # by hand: independent means of resamples of 3 and of 30
    assert draws.var() == pytest.approx(expected, rel=0.03)
    np.testing.assert_array_equal(draws, two_way_means(by_seed[:, None] + by_cluster, 40_000, 0))


def test_two_way_resampling_of_two_seeds_and_two_clusters_is_that_of_all_sixteen_cases() -> None:
    table = np.array([[1.0, 2.0], [4.0, 16.0]])
    places = list(itertools.product(range(2), repeat=2))
    cases = [table[np.ix_(seeds, clusters)].mean() for seeds in places for clusters in places]
    draws = two_way_means(table, 80_000, 1)
    for value in set(cases):
        share = np.isclose(draws, value).mean()
        assert share == pytest.approx(cases.count(value) / 16, abs=0.006)
    assert {round(value, 9) for value in draws.tolist()} == {round(value, 9) for value in cases}


def test_two_way_resampling_of_one_seed_is_that_of_its_clusters() -> None:
    own = np.array([[0.1, np.nan, 0.4, 0.2]])
    np.testing.assert_allclose(two_way_means(own, 500, 3), resampled_means(own.T, 500, 3)[:, 0], rtol=0, atol=1e-15)
    with pytest.raises(ValueError, match="expected a cluster that every seed has"):
        two_way_means(np.array([[np.nan, 1.0], [1.0, np.nan]]), 10, 0)
