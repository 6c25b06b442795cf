"""The ablation's tables: means over training seeds with intervals, tests against the full method, learning curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from prip.errors import InputError
from prip.inference.evaluation.analysis.curves import ITERATION, read_curves

BOTH = ("warm-up", "RL")


def refiner_name(row: str, stage: str, seed: int) -> str:
    """Returns what an evaluation calls a row's refiner."""
    return f"{row}, {stage}, {seed}"


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean and its 95 % interval over training seeds by Student's t: NaN of fewer than two values."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = float(student_t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - reach, mean + reach


def in_words(values: Sequence[float]) -> str:
    """Returns mean and interval, and behind them each seed's value where there are several."""
    mean, low, high = mean_and_interval(values)
    if math.isnan(low):
        return f"{mean:.3f}"
    return f"{mean:.3f} ({low:.3f} to {high:.3f}); {' '.join(f'{value:.3f}' for value in values)}"


def score_lines(
    summary: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int], generator: str, scorer: str
) -> Iterator[str]:
    """Yields a Markdown table: every row after warm-up and after RL, and what the full method has more."""
    means = {
        one["refiner"]: one["mean"]
        for one in summary["rows"]
        if (one["generator"], one["scorer"], one["category"]) == (generator, scorer, "all")
    }
    yield f"**{scorer} on {generator}**: mean over seeds, 95 % interval over seeds, each seed"
    yield ""
    yield "| row | after warm-up | after RL | full less this, warm-up | full less this, RL |"
    yield "| --- | --- | --- | --- | --- |"
    for fixed in [name for name in means if ", " not in name]:
        yield f"| {fixed} | {means[fixed]:.3f} | | | |"
    for row in rows:
        cells = []
        for difference in (False, True):
            for stage in BOTH:
                own = [means.get(refiner_name(row, stage, seed)) for seed in seeds]
                full = [means.get(refiner_name("full", stage, seed)) for seed in seeds]
                pairs = [(a, b) for a, b in zip(own, full, strict=True) if a is not None]
                if not pairs or difference and (row == "full" or any(b is None for _, b in pairs)):
                    cells.append("")
                else:
                    cells.append(in_words([b - a if difference else a for a, b in pairs]))
        yield f"| {row} | {' | '.join(cells)} |"
    yield ""


def test_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yields a Markdown table: the full method after RL against every other refiner, by every held-out scorer."""
    yield "**full after RL less another refiner**: mean over seeds, largest p of a seed (subjects resampled), share won"
    yield ""
    yield "| against | generator | scorer | difference | each seed | largest p | won |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for one in summary["comparisons"]:
        other = one["from"].rpartition(", ")[0] if one["from"][-1].isdigit() else one["from"]
        if summary["about"]["scorers"][one["scorer"]]["role"] != "trained against":
            grouped.setdefault((other, one["generator"], one["scorer"]), []).append(one)
    for (other, generator, scorer), found in grouped.items():
        differences = [one["difference"] for one in found]
        mean, low, high = mean_and_interval(differences)
        interval = "" if math.isnan(low) else f" ({low:+.3f} to {high:+.3f})"
        each = " ".join(f"{value:+.3f}" for value in differences)
        p_value, won = max(one["p_bootstrap"] for one in found), statistics.mean(one["win"] for one in found)
        yield f"| {other} | {generator} | {scorer} | {mean:+.3f}{interval} | {each} | {p_value:.2g} | {won:.2f} |"
    yield ""


def learning_curve(run: Path) -> list[tuple[int, float]]:
    """Returns iteration and gain on the dev split, as rl logged them. Raises InputError where it has no log."""
    curves = read_curves(run)
    if curves is None:
        raise InputError(f"{run} has no log of rl")
    pairs = zip(curves[ITERATION], curves["reward"], strict=True)
    return [(int(step), gain) for step, gain in pairs if step is not None and gain is not None]


def curve_lines(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]]) -> Iterator[str]:
    """Yields a Markdown table of the learning curves: gain on the dev split by iteration, each seed. An iteration has
    equally many rollouts in all rows."""
    yield "**gain on the dev split, in deviations of the rewards**: each seed"
    yield ""
    yield f"| iteration | {' | '.join(curves)} |"
    yield f"| --- |{' --- |' * len(curves)}"
    table = {name: {step: [dict(one).get(step) for one in own] for step, _ in own[0]} for name, own in curves.items()}
    for step in sorted({step for own in table.values() for step in own}):
        cells = [
            " ".join("-" if gain is None else f"{gain:+.3f}" for gain in own.get(step, [])) for own in table.values()
        ]
        yield f"| {step} | {' | '.join(cells)} |"
    yield ""
