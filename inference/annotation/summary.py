"""Summarises the answers: means and shares with intervals, and the agreement of annotators.

Answers about one prompt are not independent, so intervals resample the clusters of prompts (cluster bootstrap,
percentile interval). Agreement is Krippendorff's alpha (Krippendorff, Content Analysis, 1980, chapter 12): 1 for full
agreement, 0 for chance. Annotators may skip questions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prip.errors import require

from ..evaluation.analysis.statistics import exact_p, interval, resampled_means
from .answers import Answer, preferred, read_answers
from .items import PREFERENCE, RELEVANCE, pair_order, read_rows

DRAWS = 10_000

Rating = tuple[str, str, int]
"""Annotator, question, and the answer as a number, in the order of the answers if they have one."""


def mean_with_interval(
    values: Sequence[float], clusters: Sequence[Hashable], seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Return the mean of `values` `(n,)` and its 95 % interval, None for a single cluster, by resampling `clusters`."""
    if not values or len(values) != len(clusters):
        raise ValueError(
            f"values: expected at least one, and one for each of {len(clusters)} clusters, got {len(values)}"
        )
    sums: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value
    counts = Counter(clusters)
    mean = sum(sums.values()) / len(values)
    if len(sums) == 1:
        return mean, None, None
    columns = np.array([[total, counts[cluster]] for cluster, total in sums.items()], dtype=np.float64)
    totals, numbers = resampled_means(columns, DRAWS, seed).T
    return mean, *interval(totals / numbers)


def nominal_distance(_counts: Counter[int]) -> Callable[[int, int], float]:
    """Return alpha's distance for unordered answers."""
    return lambda first, second: float(first != second)


def ordinal_distance(counts: Counter[int]) -> Callable[[int, int], float]:
    """Return alpha's distance for ordered answers: (n_c + ... + n_k - (n_c + n_k) / 2) squared.

    counts: the frequency n_c of each answer c.
    """

    def distance(first: int, second: int) -> float:
        low, high = min(first, second), max(first, second)
        between = sum(counts[value] for value in range(low, high + 1))
        return (between - (counts[low] + counts[high]) / 2) ** 2

    return distance


def agreement(ratings: Sequence[Rating], metric: Callable[[Counter[int]], Callable[[int, int], float]]) -> float | None:
    """Return Krippendorff's alpha of ratings, at most 1.

    metric: `nominal_distance` or `ordinal_distance`. None when no question has two answers, and when all of those
    answers are the same, as chance would agree too.
    """
    times = Counter(question for _, question, _ in ratings)
    shared = [rating for rating in ratings if times[rating[1]] > 1]
    counts = Counter(value for _, _, value in shared)
    if len(counts) < 2:
        return None
    task = require("nltk.metrics.agreement", "evaluate").AnnotationTask(shared, distance=metric(counts))
    return float(task.alpha())


def relevance_rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return the mean relevance (0 to 2) of each refiner's images, with its interval and the number of answers."""
    answers = [answer for answer in answers if answer.task == RELEVANCE]
    rows = []
    for refiner in pair_order(answer.refiner_left for answer in answers):
        group = [answer for answer in answers if answer.refiner_left == refiner]
        values, clusters = [float(answer.answer) for answer in group], [answer.cluster for answer in group]
        mean, low, high = mean_with_interval(values, clusters)
        rows.append({"refiner": refiner, "mean": mean, "low": low, "high": high, "n": len(group)})
    return rows


def preference_rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return the shares of wins (with the interval low, high), ties and losses of n answers per pair of refiners.

    margin_low and margin_high are the interval of wins minus losses; p_exact is from the sign-flip test, for few
    clusters.
    """
    pairs: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    for answer in [answer for answer in answers if answer.task == PREFERENCE]:
        pairs[pair_order((answer.refiner_left, answer.refiner_right))].append(answer)
    rows = []
    for (against, refiner), group in sorted(pairs.items()):
        winners, clusters = [preferred(answer) for answer in group], [answer.cluster for answer in group]
        win, low, high = mean_with_interval([float(name == refiner) for name in winners], clusters)
        margins = [float(name == refiner) - float(name == against) for name in winners]
        _, margin_low, margin_high = mean_with_interval(margins, clusters)
        sums: dict[Hashable, float] = defaultdict(float)
        for value, cluster in zip(margins, clusters, strict=True):
            sums[cluster] += value
        rows.append(
            {
                "refiner": refiner,
                "against": against,
                "win": win,
                "tie": winners.count("") / len(group),
                "loss": winners.count(against) / len(group),
                "low": low,
                "high": high,
                "n": len(group),
                "margin_low": margin_low,
                "margin_high": margin_high,
                "clusters": len(sums),
                "p_exact": exact_p(np.array(list(sums.values()))),
            }
        )
    return rows


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the summary of all answers, in the form of `people` in summary.json."""
    relevance: list[Rating] = []
    preference: list[Rating] = []
    for answer in answers:
        if answer.task == RELEVANCE:
            relevance.append((answer.annotator, answer.item, int(answer.answer)))
        else:
            names = ("", *pair_order((answer.refiner_left, answer.refiner_right)))
            preference.append((answer.annotator, answer.item, names.index(preferred(answer))))
    return {
        "annotators": len({answer.annotator for answer in answers}),
        "answers": len(answers),
        "relevance": relevance_rows(answers),
        "preference": preference_rows(answers),
        "agreement": {
            "relevance": agreement(relevance, ordinal_distance),
            "preference": agreement(preference, nominal_distance),
        },
    }


def standing_answers(folder: Path) -> tuple[list[Answer], int]:
    """Return the final answers about images of the evaluation in `folder`, and the number of answers about others.

    An evaluation that was repeated, for example with another checkpoint, keeps its refiners' names but not its images.
    """
    answers = read_answers(folder)
    if not answers:
        return [], 0
    present = {(row.refiner, row.image) for row in read_rows(folder)}
    present.add(("", ""))
    standing = [
        answer
        for answer in answers
        if present >= {(answer.refiner_left, answer.image_left), (answer.refiner_right, answer.image_right)}
    ]
    return standing, len(answers) - len(standing)


def people_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of the human evaluation in `folder`, or None when nobody has answered yet.

    {"annotators", "answers", "relevance": [{"refiner", "mean", "low", "high", "n"}], "preference": [{"refiner",
    "against", "win", "tie", "loss", "low", "high", "n", "margin_low", "margin_high", "clusters", "p_exact"}],
    "agreement": {"relevance", "preference"}}; intervals and agreement are None when there are too few answers. Reads
    results.parquet.
    """
    answers, _ = standing_answers(folder)
    return summarise(answers) if answers else None
