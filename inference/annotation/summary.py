"""What the answers say together: means and shares with intervals, and how far annotators agree.

Answers about one prompt are not independent, so intervals resample prompts, by the clusters of the evaluation (cluster
bootstrap, percentile interval). Agreement is Krippendorff's alpha (Krippendorff, Content Analysis, 1980, chapter 12):
1 where annotators agree in all, 0 where they agree as chance would. Not everybody must have answered every question.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prip.errors import require

from ..evaluation.analysis.statistics import interval, resampled_means
from .answers import Answer, preferred, read_answers
from .items import PREFERENCE, RELEVANCE, pair_order, read_rows

DRAWS = 10_000

Rating = tuple[str, str, int]
"""Annotator, question, and the answer as a number; numbers are in the order of the answers where there is one."""


def mean_with_interval(
    values: Sequence[float], clusters: Sequence[Hashable], seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Returns the mean of `values` `(n,)` and its 95 % interval, from resampling the clusters that they belong to.

    None for the interval's ends where there is one cluster only.
    """
    if not values or len(values) != len(clusters):
        raise ValueError(
            f"values: wanted at least one, and one for each of {len(clusters)} clusters, got {len(values)}"
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
    """Returns alpha's distance of answers that are equal or not."""
    return lambda first, second: float(first != second)


def ordinal_distance(counts: Counter[int]) -> Callable[[int, int], float]:
    """Returns alpha's distance of answers that have an order: (n_c + ... + n_k - (n_c + n_k) / 2) squared.

    counts: how often each answer c was given, n_c.
    """

    def distance(first: int, second: int) -> float:
        low, high = min(first, second), max(first, second)
        between = sum(counts[value] for value in range(low, high + 1))
        return (between - (counts[low] + counts[high]) / 2) ** 2

    return distance


def agreement(ratings: Sequence[Rating], metric: Callable[[Counter[int]], Callable[[int, int], float]]) -> float | None:
    """Returns Krippendorff's alpha of ratings, at most 1.

    metric: `nominal_distance` or `ordinal_distance`. None where no question has two answers, and where all those
    answers are the same: then chance would agree as well.
    """
    times = Counter(question for _, question, _ in ratings)
    shared = [rating for rating in ratings if times[rating[1]] > 1]
    counts = Counter(value for _, _, value in shared)
    if len(counts) < 2:
        return None
    task = require("nltk.metrics.agreement", "evaluate").AnnotationTask(shared, distance=metric(counts))
    return float(task.alpha())


def relevance_rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Returns, for each refiner, the mean relevance of its images (0 to 2), with interval and the number of answers."""
    given = [answer for answer in answers if answer.task == RELEVANCE]
    rows = []
    for refiner in pair_order(answer.refiner_left for answer in given):
        own = [answer for answer in given if answer.refiner_left == refiner]
        mean, low, high = mean_with_interval([float(one.answer) for one in own], [one.cluster for one in own])
        rows.append({"refiner": refiner, "mean": mean, "low": low, "high": high, "n": len(own)})
    return rows


def preference_rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Returns, for each pair of refiners, how often the one won, tied and lost against the other, as shares.

    low, high: the interval of the share of wins. `n` is the number of answers.
    """
    given = [answer for answer in answers if answer.task == PREFERENCE]
    pairs: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    for answer in given:
        pairs[pair_order((answer.refiner_left, answer.refiner_right))].append(answer)
    rows = []
    for (against, refiner), own in sorted(pairs.items()):
        winners = [preferred(answer) for answer in own]
        win, low, high = mean_with_interval([float(name == refiner) for name in winners], [one.cluster for one in own])
        rows.append(
            {
                "refiner": refiner,
                "against": against,
                "win": win,
                "tie": winners.count("") / len(own),
                "loss": winners.count(against) / len(own),
                "low": low,
                "high": high,
                "n": len(own),
            }
        )
    return rows


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """Returns what all answers say together, in the form of summary.json's `people`."""
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
    """Returns the final answers about images that the evaluation in `folder` holds, and how many are about others.

    An evaluation that was made anew, with another checkpoint say, keeps its refiners' names but not its images.
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
    """Returns what people say about the evaluation in `folder`, None where nobody has answered yet.

    {"annotators", "answers", "relevance": [{"refiner", "mean", "low", "high", "n"}], "preference": [{"refiner",
    "against", "win", "tie", "loss", "low", "high", "n"}], "agreement": {"relevance", "preference"}}; intervals and
    agreement are None where there are too few answers for them. Reads results.parquet.
    """
    answers, _ = standing_answers(folder)
    return summarise(answers) if answers else None
