"""What happened over reinforcement learning: named series of equal length, fit for a plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from prip.errors import InputError

ITERATION, JUDGED = "iteration", "judged.json"
Series = Mapping[str, Sequence[float | None]]
_OF_THE_LOG = {"reward": "dev_reward", "kl": "dev_kl"}
"""Name of a series -> its column of the log: figures on the dev split, of greedy prompts."""


def read_curves(run: Path) -> dict[str, list[float | None]] | None:
    """Returns iteration, reward (mean gain on the dev split, in deviations) and kl (nats a token), as rl logged them.

    run: folder of a training run; None where it has no log of rl. An iteration counts those done. Raises InputError for
    a log that is none of rl's.
    """
    path = run / "rl" / "logs" / "metrics.csv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("step", *_OF_THE_LOG.values()) if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path} is no log of rl: it lacks {', '.join(missing)}")
        rows = [row for row in reader if row[_OF_THE_LOG["reward"]]]
    curves: dict[str, list[float | None]] = {ITERATION: [float(row["step"]) + 1 for row in rows]}
    for name, column in _OF_THE_LOG.items():
        curves[name] = [float(row[column]) if row[column] else None for row in rows]
    return curves


def judged_curves(run: Path) -> dict[str, list[float | None]] | None:
    """Returns what `read_curves` does, with the series of RUN/rl/judged.json where `benchmarks.reward_hacking` has
    asked judges about the parts that rl kept."""
    curves, judged = read_curves(run), run / "rl" / JUDGED
    if curves is None or not judged.is_file():
        return curves
    return joined(curves, json.loads(judged.read_text(encoding="utf-8")))


def joined(first: Series, second: Series) -> dict[str, list[float | None]]:
    """Returns both tables as one, by iteration; None where a series has no value. `second` wins where both have one.

    Raises InputError where series differ in length or `iteration` is missing.
    """
    for name, table in (("first", first), ("second", second)):
        lengths = {series: len(values) for series, values in table.items()}
        if ITERATION not in table or len(set(lengths.values())) != 1:
            raise InputError(f"{name}: wanted iteration and series as long as it, got {lengths}")
    values: dict[float | None, dict[str, float | None]] = {}
    for table in (first, second):
        for place, iteration in enumerate(table[ITERATION]):
            own = {name: series[place] for name, series in table.items() if series[place] is not None}
            values.setdefault(iteration, {}).update(own)
    names = dict.fromkeys([*first, *second])
    order = sorted(values, key=lambda iteration: float(iteration or 0))
    return {name: [values[iteration].get(name) for iteration in order] for name in names}
