"""Training curves of reinforcement learning: named series of equal length."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from prip.errors import InputError

ITERATION, JUDGED = "iteration", "judged.json"
Series = Mapping[str, Sequence[float | None]]
_OF_THE_LOG = {"reward": "dev_reward", "kl": "dev_kl"}
"""Column of the log for each series: figures on the dev split, with greedy prompts."""


def read_curves(run: Path) -> dict[str, list[float | None]] | None:
    """Return iteration, reward (mean gain on the dev split, in deviations) and kl (nats per token) from a run's RL log.

    An iteration counts the completed ones. Returns None if the run has no log of RL. Raises InputError if the log lacks
    columns.
    """
    path = run / "rl" / "logs" / "metrics.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("step", *_OF_THE_LOG.values()) if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: expected a log of rl, got one without {', '.join(missing)}")
        rows = [row for row in reader if row[_OF_THE_LOG["reward"]]]
    curves: dict[str, list[float | None]] = {ITERATION: [float(row["step"]) + 1 for row in rows]}
    for name, column in _OF_THE_LOG.items():
        curves[name] = [float(row[column]) if row[column] else None for row in rows]
    return curves


def judged_curves(run: Path) -> dict[str, list[float | None]] | None:
    """Return `read_curves` joined with RUN/rl/judged.json, if `benchmarks.reward_hacking` has written it."""
    curves, judged = read_curves(run), run / "rl" / JUDGED
    if curves is None or not judged.is_file():
        return curves
    return joined(curves, json.loads(judged.read_text(encoding="utf-8")))


def joined(first: Series, second: Series) -> dict[str, list[float | None]]:
    """Return both tables as one, by iteration; None where a series has no value, and `second` wins over `first`.

    Raises InputError when series differ in length or `iteration` is missing.
    """
    for name, table in (("first", first), ("second", second)):
        lengths = {series: len(values) for series, values in table.items()}
        if ITERATION not in table or len(set(lengths.values())) != 1:
            raise InputError(f"{name}: expected iteration and series of its length, got {lengths}")
    values: dict[float | None, dict[str, float | None]] = {}
    for table in (first, second):
        for index, iteration in enumerate(table[ITERATION]):
            known = {name: series[index] for name, series in table.items() if series[index] is not None}
            values.setdefault(iteration, {}).update(known)
    names = dict.fromkeys([*first, *second])
    order = sorted(values, key=lambda iteration: float(iteration or 0))
    return {name: [values[iteration].get(name) for iteration in order] for name in names}
