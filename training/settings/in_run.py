"""Settings that name places in the run's folder."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

MARK = "RUN/"


def in_run(value: Any, run: Path) -> Any:
    """Returns settings in which texts and paths that begin with RUN/, or with RUN/ after a =, lie in the folder `run`.

    value: a settings dataclass, or what a field of one holds.
    """
    if isinstance(value, (str, Path)):
        before, equals, place = str(value).rpartition("=")
        found = f"{before}{equals}{run / place.removeprefix(MARK)}"
        return type(value)(found) if place.startswith(MARK) else value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: in_run(getattr(value, field.name), run) for field in fields(value)})
    if isinstance(value, dict):
        return {key: in_run(own, run) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(in_run(own, run) for own in value)
    return value
