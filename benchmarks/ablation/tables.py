"""The ablation's tables: means over training seeds, tests against the full method, and learning curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from benchmarks.common import table_head, table_row
from prip.errors import InputError
from prip.inference.evaluation.analysis.curves import ITERATION, read_curves

BOTH = ("warm-up", "RL")


def refiner_name(row: str, stage: str, seed: int) -> str:
    """Return the name of a row's refiner in an evaluation."""
    return f"{row}, {stage}, {seed}"


def mean_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval by Student's t, which is NaN for fewer than two values."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = float(student_t.ppf(0.975, len(values) - 1)) * error
    return mean, mean - reach, mean + reach


def in_words(values: Sequence[float]) -> str:
    """Format the mean and, for several values, its interval and each value."""
    mean, low, high = mean_and_interval(values)
    if math.isnan(low):
        return f"{mean:.3f}"
    return f"{mean:.3f} ({low:.3f} to {high:.3f}); {' '.join(f'{value:.3f}' for value in values)}"


def score_lines(
    summary: Mapping[str, Any], rows: Sequence[str], seeds: Sequence[int], generator: str, scorer: str
) -> Iterator[str]:
    """Yield a Markdown table: every row after warm-up and after RL, and the full method's advantage."""
    means = {
        row["refiner"]: row["mean"]
        for row in summary["rows"]
        if (row["generator"], row["scorer"], row["category"]) == (generator, scorer, "all")
    }
    yield f"**{scorer} on {generator}**: mean over seeds, 95 % interval over seeds, each seed"
    yield ""
    yield table_head(["row", "after warm-up", "after RL", "full minus this, warm-up", "full minus this, RL"])
    for fixed in [name for name in means if ", " not in name]:
        yield table_row([fixed, f"{means[fixed]:.3f}", "", "", ""])
    for row in rows:
        cells = []
        for difference in (False, True):
            for stage in BOTH:
                these = [means.get(refiner_name(row, stage, seed)) for seed in seeds]
                full = [means.get(refiner_name("full", stage, seed)) for seed in seeds]
                pairs = [(a, b) for a, b in zip(these, full, strict=True) if a is not None]
                if not pairs or difference and (row == "full" or any(b is None for _, b in pairs)):
                    cells.append("")
                else:
                    cells.append(in_words([b - a if difference else a for a, b in pairs]))
        yield table_row([row, *cells])
    yield ""


def test_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table: the full method after RL against every other refiner, by every held-out scorer."""
    yield "**full after RL minus another refiner**: mean over seeds, largest p of a seed (resampled subjects), wins"
    yield ""
    yield table_head(["against", "generator", "scorer", "difference", "each seed", "largest p", "won"])
    grouped: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in summary["comparisons"]:
        other = row["from"].rpartition(", ")[0] if row["from"][-1].isdigit() else row["from"]
        if summary["about"]["scorers"][row["scorer"]]["role"] != "trained against":
            grouped.setdefault((other, row["generator"], row["scorer"]), []).append(row)
    for names, rows in grouped.items():
        differences = [row["difference"] for row in rows]
        mean, low, high = mean_and_interval(differences)
        interval = "" if math.isnan(low) else f" ({low:+.3f} to {high:+.3f})"
        each = " ".join(f"{value:+.3f}" for value in differences)
        p_value, won = max(row["p_bootstrap"] for row in rows), statistics.mean(row["win"] for row in rows)
        yield table_row([*names, f"{mean:+.3f}{interval}", each, f"{p_value:.2g}", f"{won:.2f}"])
    yield ""


def learning_curve(run: Path) -> list[tuple[int, float]]:
    """Return iteration and gain on the dev split as rl logged them; raise InputError without a log."""
    curves = read_curves(run)
    if curves is None:
        raise InputError(f"{run} has no log of rl")
    pairs = zip(curves[ITERATION], curves["reward"], strict=True)
    return [(int(step), gain) for step, gain in pairs if step is not None and gain is not None]


def curve_lines(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]]) -> Iterator[str]:
    """Yield a Markdown table of each seed's gain on the dev split by iteration; all rows have equal rollouts."""
    yield "**gain on the dev split, in deviations of the rewards**: each seed"
    yield ""
    yield table_head(["iteration", *curves])
    seeds = {name: [dict(curve) for curve in by_seed] for name, by_seed in curves.items()}
    gains = {
        name: {step: [curve.get(step) for curve in by_seed] for step in by_seed[0]} for name, by_seed in seeds.items()
    }
    for step in sorted({step for by_step in gains.values() for step in by_step}):
        cells = [[f"{gain:+.3f}" if gain is not None else "-" for gain in row.get(step, [])] for row in gains.values()]
        yield table_row([step, *map(" ".join, cells)])
    yield ""
