"""A stage's folder in the run: its settings, the hashes of its inputs, and its metrics."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from prip.errors import InputError, check_installed
from prip.files import replace_text

from ..settings import RunSettings
from .processes import process_rank, release_the_others, started_together, wait_for_the_first

SETTINGS_FILE, METRICS_FILE = "settings.yaml", "metrics.json"
_log = logging.getLogger(__name__)
_held_lines: list[str] = []
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


def stage_folder(
    settings: RunSettings, stage: str, inputs: Mapping[str, str] | None = None, outputs: Sequence[Path] = ()
) -> Path:
    """Prepare RUN/stage, write settings.yaml and inputs.json into it, and return it.

    Only the first process writes. Nothing is deleted before all checks have passed, and with `overwrite` the other
    processes return only then, so that none reads a file of the earlier run.

    Args:
        settings: Settings of the stage.
        stage: Its name.
        inputs: Hashes of what the stage reads, by name.
        outputs: Folders outside of RUN/stage that the stage writes, which `overwrite` deletes as well.

    Raises:
        MissingExtraError: An optional package of the stage is not installed.
        PripError: The processes of a launcher do not meet.
        InputError: As in `check_folder`, the device does not exist, or the inputs of a resumed stage have changed.
    """
    folder = settings.run / stage
    check_packages(settings)
    barrier = settings.run / f".{stage.replace('/', '-')}-processes"
    if process_rank():
        if settings.overwrite and started_together() > 1:
            wait_for_the_first(barrier)
        return folder
    check_folder(settings, stage)
    _check_device(settings)
    path = folder / SETTINGS_FILE
    if settings.overwrite:
        for output in outputs:
            shutil.rmtree(output, ignore_errors=True)
        if path.exists():
            shutil.rmtree(folder)
    replace_text(path, yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True))
    _check_inputs(folder, dict(inputs or {}))
    if settings.overwrite and started_together() > 1:
        release_the_others(barrier)
    log_held_lines()
    return folder


def hold_lines(text: str) -> None:
    """Log `text` as soon as the stage has checked its inputs: an error before that is all the user has to read."""
    _held_lines[:] = [text]


def log_held_lines() -> None:
    """Log the held text, once."""
    while _held_lines:
        _log.info("%s", _held_lines.pop())


def check_packages(settings: RunSettings) -> None:
    """Raise MissingExtraError if an optional package that the stage will import is not installed."""
    for module, extra in settings.packages():
        check_installed(module, extra)


def _check_device(settings: RunSettings) -> None:
    """Raise InputError if the settings ask for a GPU that is not there, or for more GPUs than there are."""
    import torch  # not at the top: --help and wrong settings need no torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if settings.device == "cuda" and not available:
        raise InputError("device: expected auto or cpu, since torch finds no GPU, got cuda")
    devices = getattr(settings, "devices", 1)
    if settings.device != "cpu" and 0 < available < devices and "WORLD_SIZE" not in os.environ:
        raise InputError(f"devices: expected at most {available}, the number of GPUs, got {devices}")


def check_folder(settings: RunSettings, stage: str) -> None:
    """Raise InputError if RUN/stage has an earlier run that is neither overwritten nor resumed with its settings."""
    folder = settings.run / stage
    path = folder / SETTINGS_FILE
    if settings.overwrite or not path.exists():
        return
    if not settings.resume:
        raise InputError(f"run: {folder} holds an earlier run: add --resume to continue or --overwrite to replace it")
    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    new = flat(_compared(_plain(settings)))
    # Settings that did not exist yet when the run began had the effect of their defaults.
    old = _defaults(settings, new) | flat(_compared(stored))
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        pairs = "; ".join(f"{name} was {old.get(name)}, is {new.get(name)}" for name in changed)
        raise InputError(f"resume: expected the settings with which {folder} began, but {pairs}")


def _defaults(settings: RunSettings, names: Iterable[str]) -> dict[str, Any]:
    """Return the defaults of those settings, by dotted name, that have one."""
    defaults: dict[str, Any] = {}
    for name in names:
        *groups, last = name.split(".")
        group: Any = settings
        for part in groups:
            group = getattr(group, part, None)
        field = {each.name: each for each in fields(group)}.get(last) if is_dataclass(group) else None
        if field is not None and field.default is not MISSING:
            defaults[name] = json.loads(json.dumps(field.default, default=str))
    return defaults


def finished_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the metrics of a stage that has already finished, and log that; None for any other stage."""
    path = folder / METRICS_FILE
    if not path.exists():
        return None
    _log.info("%s has already finished", folder)
    return json.loads(path.read_text(encoding="utf-8"))


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write the metrics of a stage, which mark it as finished."""
    replace_text(folder / METRICS_FILE, json.dumps(metrics, indent=2) + "\n")


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return settings by their dotted names, like flags."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        result |= flat(value, f"{before}{name}.") if nested else {f"{before}{name}": value}
    return result


def _check_inputs(folder: Path, inputs: dict[str, str]) -> None:
    path = folder / "inputs.json"
    if not path.exists():
        replace_text(path, json.dumps(inputs, indent=2) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(name for name in before.keys() | inputs.keys() if before.get(name) != inputs.get(name))
    if changed:
        raise InputError(f"resume: expected the inputs with which {folder} began, but changed: {', '.join(changed)}")


def _compared(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a resumed run must keep; for the shape of a step, only its total number of examples."""
    kept = {name: value for name, value in settings.items() if name not in _NOT_COMPARED}
    if "devices" not in settings:
        return kept
    loop = dict(kept["loop"])
    examples = settings["devices"] * loop.pop("accumulate") * loop.pop("batch_size")
    return kept | {"loop": loop, "devices x loop.accumulate x loop.batch_size": examples}


def _plain(settings: RunSettings) -> dict[str, Any]:
    """Return the settings as YAML holds them: paths as text, tuples as lists."""
    return json.loads(json.dumps(asdict(settings), default=str))
