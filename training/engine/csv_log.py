"""A CSV log of metrics that a resumed run continues (Lightning's own deletes earlier rows)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from prip.files import replace_file


class CsvLogger(Logger):
    """Writes one row per step and one column per metric; logging a step again overwrites its values.

    Rows already in `path` are kept. Only the first process writes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, Any]] = {}
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    step = int(row.pop("step"))
                    self._rows[step] = {name: value for name, value in row.items() if value}

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the settings have a file of their own."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add `metrics` to the row of `step`."""
        row = {name: f"{float(value):.6g}" for name, value in metrics.items() if name != "epoch"}
        self._rows.setdefault(step or 0, {}).update(row)

    @rank_zero_only
    def save(self) -> None:
        """Write all rows."""
        columns = dict.fromkeys(name for row in self._rows.values() for name in row)

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["step", *columns])
                writer.writeheader()
                writer.writerows({"step": step, **self._rows[step]} for step in sorted(self._rows))

        replace_file(self.path, write)
