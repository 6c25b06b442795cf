"""The statistics of evaluation: pure functions on arrays.

Prompts that share a cluster (a subject, say) are not independent, so clusters are the unit: scores are averaged within
a cluster, and intervals and tests resample clusters (cluster bootstrap; Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapters 13 and 16: percentile interval, and the two-sided p-value that inverts it).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prip.errors import require

Floats = NDArray[np.float64]

COVERAGE = 0.95
TIE = 1e-6
"""Two mean scores that differ by no more than this are a tie: single precision tells no more."""
_BLOCK = 1 << 21
"""Numbers of a block of resamples: what bounds the memory of the bootstrap."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval and the two-sided p-value of its being 0."""

    value: float
    low: float
    high: float
    p_value: float


def group_means(values: Floats, groups: Sequence[Hashable]) -> tuple[Floats, list[Hashable]]:
    """Returns the mean of `values` `(n,)` in each group `(groups,)`, and the groups in order of appearance.

    NaN is left out of a mean, and is the mean of a group that holds nothing else.
    """
    if len(values) != len(groups):
        raise ValueError(f"groups: wanted one for each of {len(values)} values, got {len(groups)}")
    order = list(dict.fromkeys(groups))
    place = {group: i for i, group in enumerate(order)}
    index = np.array([place[group] for group in groups], dtype=np.intp)
    there = ~np.isnan(values)
    sums = np.bincount(index[there], weights=values[there], minlength=len(order))
    counts = np.bincount(index[there], minlength=len(order))
    return np.divide(sums, counts, out=np.full(len(order), np.nan), where=counts > 0), order


def cluster_means(values: Floats, units: Sequence[Hashable], clusters: Sequence[Hashable]) -> Floats:
    """Returns one mean a cluster `(clusters,)`, of the means of its units, of their scores `values` `(n,)`.

    `units` and `clusters` are those of each score; all scores of a unit must have one cluster. NaN as in `group_means`.
    """
    means, order = group_means(values, units)
    cluster_of = dict(zip(units, clusters, strict=True))
    return group_means(means, [cluster_of[unit] for unit in order])[0]


def resampling_weights(clusters: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yields what share each cluster has in each resample with replacement, `(block, clusters)`, rows of sum 1.

    `draws` rows in all, in blocks that bound the memory; a function of the arguments alone.
    """
    if clusters < 1:
        raise ValueError("clusters: wanted at least 1")
    generator, rows = np.random.default_rng(seed), max(1, _BLOCK // clusters)
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        chosen = generator.integers(clusters, size=(block, clusters)) + clusters * np.arange(block)[:, None]
        yield np.bincount(chosen.ravel(), minlength=block * clusters).reshape(block, clusters) / clusters


def resampled_means(columns: Floats, draws: int, seed: int) -> Floats:
    """Returns the means of each column of `(clusters, columns)` in resamples of the clusters, `(draws, columns)`.

    NaN stands for a cluster that a column lacks: the column's own clusters are resampled. Columns that have the same
    number of clusters share their resamples. A column without any cluster has NaN means.
    """
    means = np.full((draws, columns.shape[1]), np.nan)
    patterns: dict[bytes, list[int]] = {}
    for place, there in enumerate(~np.isnan(columns).T):
        if there.any():
            patterns.setdefault(there.tobytes(), []).append(place)
    for places in patterns.values():
        own = columns[:, places][~np.isnan(columns[:, places[0]])]
        start = 0
        for weights in resampling_weights(len(own), draws, seed):
            means[start : start + len(weights), places] = weights @ own
            start += len(weights)
    return means


def two_way_means(differences: Floats, draws: int, seed: int) -> Floats:
    """Returns the means of `(seeds, clusters)` differences in resamples of the training seeds and, independently, of
    the clusters, `(draws,)`.

    A cluster that any seed lacks (NaN) is left out. What seeds and clusters vary shows both (Owen, The pigeonhole
    bootstrap, Ann. Appl. Stat. 1, 2007, 386-411), of S seeds though only (S - 1) / S of their variance. Raises
    ValueError where no cluster is left.
    """
    complete = differences[:, ~np.isnan(differences).any(axis=0)]
    if not complete.size:
        raise ValueError("differences: wanted a cluster that every seed has")
    seeds = np.concatenate(list(resampling_weights(len(complete), draws, seed + 1)))
    means, start = np.empty(draws), 0
    for weights in resampling_weights(complete.shape[1], draws, seed):
        block = slice(start, start + len(weights))
        means[block] = np.einsum("bs,bc,sc->b", seeds[block], weights, complete, optimize=True)
        start += len(weights)
    return means


def interval(draws: Floats) -> tuple[float, float]:
    """Returns the 95 % percentile interval of resampled figures `(draws,)`."""
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def estimate(clusters: Floats, draws: Floats) -> Estimate:
    """Returns the mean of `clusters` `(clusters,)`, NaN left out, with what its resampled means `(draws,)` tell of it.

    p = 2 min(#{draws <= 0} + 1, #{draws >= 0} + 1) / (#draws + 1), at most 1: never 0, however many draws.
    """
    tail = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)) + 1
    return Estimate(float(np.nanmean(clusters)), *interval(draws), float(min(1.0, 2 * tail / (len(draws) + 1))))


def paired_t(differences: Floats) -> float:
    """Returns the two-sided p-value of the paired t-test on `(clusters,)` differences, without NaN.

    1 where they do not vary, or there are fewer than two: nothing tells how far chance would take them.
    """
    if len(differences) < 2 or np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return 1.0
    return float(require("scipy.stats", "evaluate").ttest_1samp(differences, 0.0).pvalue)


def wilcoxon(differences: Floats) -> float:
    """Returns the two-sided p-value of Wilcoxon's signed-rank test on `(clusters,)` differences, without NaN.

    Differences of 0 are left out, as Wilcoxon did; 1 where none other is there.
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    return float(require("scipy.stats", "evaluate").wilcoxon(moved).pvalue)


def win_tie_loss(differences: Floats, tie: float = TIE) -> tuple[float, float, float]:
    """Returns the shares of `differences` `(n,)`, without NaN, above `tie`, within it either way, and below."""
    if not len(differences):
        raise ValueError("differences: wanted at least 1")
    win, loss = float((differences > tie).mean()), float((differences < -tie).mean())
    return win, float((np.abs(differences) <= tie).mean()), loss


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for their number, in their order (Holm, Scand. J. Statist. 6, 1979, 65-70).

    The i-th smallest of m is multiplied by m - i + 1; none may be below a smaller one's, or above 1.
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def ratio_of_means(
    numerator: Floats, denominator: Floats, draws: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    """Returns mean(numerator) / mean(denominator), both `(clusters,)` without NaN, with its percentile interval.

    None for the ratio where the denominator's mean is not above 0, and for the interval where that of any resample
    is not: a share of nothing is no number.
    """
    if not denominator.mean() > 0:
        return None, None, None
    share = float(numerator.mean() / denominator.mean())
    above, below = resampled_means(np.stack([numerator, denominator], axis=1), draws, seed).T
    if (below <= 0).any():
        return share, None, None
    return share, *interval(above / below)


def correlation(first: Floats, second: Floats) -> float | None:
    """Returns Pearson's correlation of two `(n,)`, None where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
