"""The statistics of evaluation: pure functions on arrays.

Prompts that share a subject are not independent, so subjects are the unit: scores are averaged within a subject, and
intervals and tests resample subjects (cluster bootstrap; Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapters 13 and 16: percentile interval, and the two-sided p-value that inverts it).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

COVERAGE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p_value: float


def group_means(values: Floats, groups: Sequence[Hashable]) -> tuple[Floats, list[Hashable]]:
    """Return the mean of `values` `(n,)` in each group `(groups,)`, and the groups in order of appearance."""
    if len(values) != len(groups):
        raise ValueError(f"groups: wanted one for each of {len(values)} values, got {len(groups)}")
    order = list(dict.fromkeys(groups))
    place = {group: i for i, group in enumerate(order)}
    index = np.array([place[group] for group in groups], dtype=np.intp)
    sums = np.bincount(index, weights=values, minlength=len(order))
    return sums / np.bincount(index, minlength=len(order)), order


def cluster_means(values: Floats, combinations: Sequence[Hashable], subjects: Sequence[Hashable]) -> Floats:
    """Return one mean a subject `(subjects,)`, of the means of its combinations, of their scores `values` `(n,)`.

    `combinations` and `subjects` are those of each score; all scores of a combination must have one subject.
    """
    means, order = group_means(values, combinations)
    subject_of = dict(zip(combinations, subjects, strict=True))
    return group_means(means, [subject_of[combination] for combination in order])[0]


def resampling_weights(clusters: int, draws: int, seed: int) -> Floats:
    """Return what share each cluster has in each resample with replacement, `(draws, clusters)`, rows of sum 1."""
    if clusters < 1:
        raise ValueError("clusters: wanted at least 1")
    counts = np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    return counts / clusters


def _interval(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def mean_difference(differences: Floats, weights: Floats) -> Estimate:
    """Return the mean of paired differences `(clusters,)`, its percentile interval and p-value by `weights`.

    p = 2 min(#{draws <= 0} + 1, #{draws >= 0} + 1) / (#draws + 1), at most 1: never 0, however many draws.
    """
    draws = weights @ differences
    tail = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)) + 1
    low, high = _interval(draws)
    return Estimate(float(differences.mean()), low, high, min(1.0, 2 * tail / (len(draws) + 1)))


def ratio_of_means(
    numerator: Floats, denominator: Floats, weights: Floats
) -> tuple[float | None, float | None, float | None]:
    """Return mean(numerator) / mean(denominator), both `(clusters,)`, with its percentile interval.

    None for the ratio where the denominator's mean is not above 0, and for the interval where that of any resample
    is not: a share of nothing is no number.
    """
    if denominator.mean() <= 0:
        return None, None, None
    share = float(numerator.mean() / denominator.mean())
    below = weights @ denominator
    if (below <= 0).any():
        return share, None, None
    return share, *_interval((weights @ numerator) / below)


def correlation(first: Floats, second: Floats) -> float | None:
    """Return Pearson's correlation of two `(n,)`, None where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
