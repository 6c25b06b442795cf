"""A stage's folder in the run: settings and inputs that it began with, by which it is resumed or refused."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from prip.errors import InputError
from prip.files import replace_text

from ..settings import RunSettings
from .processes import process_rank

SETTINGS_FILE, METRICS_FILE = "settings.yaml", "metrics.json"
_log = logging.getLogger(__name__)
_NOT_COMPARED = (
    "run",
    "data",
    "resume",
    "overwrite",
    "progress",
    "device",
    "devices",
    "strategy",
    "ray",
    "push_to_hub",
    "private",
)


def stage_folder(settings: RunSettings, stage: str, inputs: Mapping[str, str] | None = None) -> Path:
    """Makes RUN/stage ready and writes settings.yaml and inputs.json there; returns it.

    inputs: hashes of what the stage reads, by name. Raises InputError as check_folder does, or if resume is set and the
    inputs differ from those that the run began with. The first process alone looks and writes.
    """
    folder = settings.run / stage
    if process_rank():
        return folder
    check_folder(settings, stage)
    path = folder / SETTINGS_FILE
    if path.exists() and settings.overwrite:
        shutil.rmtree(folder)
    replace_text(path, yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True))
    _check_inputs(folder, dict(inputs or {}))
    return folder


def check_folder(settings: RunSettings, stage: str) -> None:
    """Raises InputError if RUN/stage holds an earlier run and neither resume nor overwrite is set, or if resume is set
    and the settings differ from those that it began with."""
    folder = settings.run / stage
    path = folder / SETTINGS_FILE
    if settings.overwrite or not path.exists():
        return
    if not settings.resume:
        raise InputError(
            f"run: {folder} holds an earlier run: add --resume to continue it or --overwrite to replace it"
        )
    old, new = (flat(_compared(one)) for one in (yaml.safe_load(path.read_text(encoding="utf-8")), _plain(settings)))
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        pairs = "; ".join(f"{name} was {old.get(name)}, is {new.get(name)}" for name in changed)
        raise InputError(f"resume: wanted the settings that {folder} began with, but {pairs}")


def finished_metrics(folder: Path) -> dict[str, Any] | None:
    """Returns the metrics of a stage that is finished already, which is logged; None of any other. folder: the
    stage's."""
    path = folder / METRICS_FILE
    if not path.exists():
        return None
    _log.info("%s is finished already", folder)
    return json.loads(path.read_text(encoding="utf-8"))


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Writes what tells that a stage is finished: its metrics."""
    replace_text(folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Returns settings by their dotted names, as flags have them."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, Mapping) and value else {f"{before}{name}": value}
    return found


def _check_inputs(folder: Path, inputs: dict[str, str]) -> None:
    path = folder / "inputs.json"
    if not path.exists():
        replace_text(path, json.dumps(inputs, indent=2) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(name for name in before.keys() | inputs.keys() if before.get(name) != inputs.get(name))
    if changed:
        raise InputError(f"resume: wanted what {folder} began with, but changed since: {', '.join(changed)}")


def _compared(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that a resumed run must have kept: of how a step is shared out, the examples in all."""
    kept = {name: value for name, value in settings.items() if name not in _NOT_COMPARED}
    if "devices" not in settings:
        return kept
    loop = dict(kept["loop"])
    examples = settings["devices"] * loop.pop("accumulate") * loop.pop("batch_size")
    return kept | {"loop": loop, "devices x loop.accumulate x loop.batch_size": examples}


def _plain(settings: RunSettings) -> dict[str, Any]:
    """Returns the settings as YAML holds them: paths as text, tuples as lists."""
    return json.loads(json.dumps(asdict(settings), default=str))
