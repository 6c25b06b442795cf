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
"""Mean scores that differ by at most this are a tie, given single precision."""
FEW_CLUSTERS = 20
"""Below this number of clusters, the bootstrap's intervals are too narrow and its p-values too small."""
_BLOCK = 1 << 21
"""Numbers per block of resamples, to bound the memory of the bootstrap."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval and the two-sided p-value against 0."""

    value: float
    low: float
    high: float
    p_value: float


def group_means(values: Floats, groups: Sequence[Hashable]) -> tuple[Floats, list[Hashable]]:
    """Return the mean of `values` `(n,)` in each group `(groups,)`, and the groups in order of appearance.

    NaN values are ignored; a group with no other values has the mean NaN.
    """
    if len(values) != len(groups):
        raise ValueError(f"groups: expected one for each of {len(values)} values, got {len(groups)}")
    order = list(dict.fromkeys(groups))
    index_of = {group: index for index, group in enumerate(order)}
    indices = np.array([index_of[group] for group in groups], dtype=np.intp)
    valid = ~np.isnan(values)
    sums = np.bincount(indices[valid], weights=values[valid], minlength=len(order))
    counts = np.bincount(indices[valid], minlength=len(order))
    return np.divide(sums, counts, out=np.full(len(order), np.nan), where=counts > 0), order


def cluster_means(values: Floats, units: Sequence[Hashable], clusters: Sequence[Hashable]) -> Floats:
    """Return the mean of each cluster `(clusters,)` over the means of its units over their scores `values` `(n,)`.

    `units` and `clusters` belong to the scores; each unit must lie in one cluster. NaN as in `group_means`.
    """
    means, order = group_means(values, units)
    cluster_of = dict(zip(units, clusters, strict=True))
    return group_means(means, [cluster_of[unit] for unit in order])[0]


def resampling_weights(clusters: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yield the share of each cluster in each resample with replacement, `(block, clusters)`, rows of sum 1.

    There are `draws` rows in all, in blocks that bound the memory; they depend on the arguments alone.
    """
    if clusters < 1:
        raise ValueError("clusters: expected at least 1, got 0")
    generator, rows = np.random.default_rng(seed), max(1, _BLOCK // clusters)
    for start in range(0, draws, rows):
        block = min(rows, draws - start)
        chosen = generator.integers(clusters, size=(block, clusters)) + clusters * np.arange(block)[:, None]
        yield np.bincount(chosen.ravel(), minlength=block * clusters).reshape(block, clusters) / clusters


def resampled_means(columns: Floats, draws: int, seed: int) -> Floats:
    """Return the means of each column of `(clusters, columns)` in resamples of the clusters, `(draws, columns)`.

    NaN marks a cluster that a column lacks: only the column's own clusters are resampled. Columns with the same number
    of clusters share their resamples. A column without clusters has NaN means.
    """
    means = np.full((draws, columns.shape[1]), np.nan)
    patterns: dict[bytes, list[int]] = {}
    for index, valid in enumerate(~np.isnan(columns).T):
        if valid.any():
            patterns.setdefault(valid.tobytes(), []).append(index)
    for indices in patterns.values():
        clusters = columns[:, indices][~np.isnan(columns[:, indices[0]])]
        start = 0
        for weights in resampling_weights(len(clusters), draws, seed):
            means[start : start + len(weights), indices] = weights @ clusters
            start += len(weights)
    return means


def two_way_means(differences: Floats, draws: int, seed: int) -> Floats:
    """Return the means of `(seeds, clusters)` differences in resamples of the training seeds and, independently, of
    the clusters, `(draws,)`.

    Clusters that any seed lacks (NaN) are ignored. The resamples reflect the variance of seeds and clusters (Owen, The
    pigeonhole bootstrap, Ann. Appl. Stat. 1, 2007, 386-411), but only (S - 1) / S of that of S seeds.

    Raises ValueError when no cluster is left.
    """
    complete = differences[:, ~np.isnan(differences).any(axis=0)]
    if not complete.size:
        raise ValueError("differences: expected a cluster that every seed has")
    seeds = np.concatenate(list(resampling_weights(len(complete), draws, seed + 1)))
    means, start = np.empty(draws), 0
    for weights in resampling_weights(complete.shape[1], draws, seed):
        block = slice(start, start + len(weights))
        means[block] = np.einsum("bs,bc,sc->b", seeds[block], weights, complete, optimize=True)
        start += len(weights)
    return means


def interval(draws: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled figures `(draws,)`."""
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def estimate(clusters: Floats, draws: Floats) -> Estimate:
    """Return the mean of `clusters` `(clusters,)` without NaN; interval and p-value are from its resampled means.

    p = 2 min(#{draws <= 0} + 1, #{draws >= 0} + 1) / (#draws + 1), at most 1: never 0, however many draws.
    """
    tail = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0)) + 1
    return Estimate(float(np.nanmean(clusters)), *interval(draws), float(min(1.0, 2 * tail / (len(draws) + 1))))


def sign_flip(sums: Floats) -> float:
    """Return the exact two-sided p-value of the sign-flip test on the sums of clusters `(clusters,)`, without NaN.

    p is the share of the 2^n patterns of signs whose total is at least as far from 0 as the observed one (Fisher, The
    Design of Experiments, 1935, section 21): never below 2 / 2^n. Means of clusters do as well as sums if every cluster
    counts alike.

    Raises ValueError for as many clusters as `FEW_CLUSTERS` or more, or for none.
    """
    if not 0 < len(sums) < FEW_CLUSTERS:
        raise ValueError(f"sums: expected 1 to {FEW_CLUSTERS - 1} clusters, got {len(sums)}")
    # A pattern and its opposite are equally far from 0, so the first sign stays as it is.
    totals = np.array(sums[:1], dtype=np.float64)
    for value in sums[1:]:
        totals = np.concatenate([totals + value, totals - value])
    rounding = 1e-12 * np.abs(sums).sum()
    return float((np.abs(totals) >= abs(sums.sum()) - rounding).mean())


def exact_p(sums: Floats) -> float | None:
    """Return the p-value of `sign_flip` for few clusters, or None for `FEW_CLUSTERS` or more."""
    return sign_flip(sums) if len(sums) < FEW_CLUSTERS else None


def paired_t(differences: Floats) -> float:
    """Return the two-sided p-value of the paired t-test on `(clusters,)` differences, without NaN.

    1 for constant differences or fewer than two, which say nothing about chance.
    """
    if len(differences) < 2 or np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return 1.0
    return float(require("scipy.stats", "evaluate").ttest_1samp(differences, 0.0).pvalue)


def wilcoxon(differences: Floats) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on `(clusters,)` differences, without NaN.

    Differences of 0 are ignored, as by Wilcoxon; 1 when there are no others.
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    return float(require("scipy.stats", "evaluate").wilcoxon(moved).pvalue)


def win_tie_loss(differences: Floats, tie: float = TIE) -> tuple[float, float, float]:
    """Return the shares of `differences` `(n,)`, without NaN, above `tie`, within it either way, and below."""
    if not len(differences):
        raise ValueError("differences: expected at least 1, got none")
    win, loss = float((differences > tie).mean()), float((differences < -tie).mean())
    return win, float((np.abs(differences) <= tie).mean()), loss


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in their order (Holm, Scand. J. Statist. 6, 1979, 65-70).

    The i-th smallest of m is multiplied by m - i + 1; the results increase with the p-values up to 1.
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def ratio_of_means(
    numerator: Floats, denominator: Floats, draws: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    """Return mean(numerator) / mean(denominator), both `(clusters,)` without NaN, with its percentile interval.

    The ratio is None when the denominator's mean is not above 0, and the interval when that of any resample is not.
    """
    if not denominator.mean() > 0:
        return None, None, None
    share = float(numerator.mean() / denominator.mean())
    above, below = resampled_means(np.stack([numerator, denominator], axis=1), draws, seed).T
    if (below <= 0).any():
        return share, None, None
    return share, *interval(above / below)


def correlation(first: Floats, second: Floats) -> float | None:
    """Return Pearson's correlation of two `(n,)`, or None when one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
