"""The refiner that a run produces: a complete checkpoint with the record of its training."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import yaml

from prip.files import replace_folder, replace_text
from prip.hub.model_card import refiner_card
from prip.hub.publish import publish
from prip.loading.untrusted import read_json
from prip.modeling import PripModel
from prip.processing import PripProcessor

_log = logging.getLogger(__name__)
Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
_OF_THE_MACHINE = ("run", "resume", "overwrite", "progress", "device", "push_to_hub", "private")
_LIBRARIES = ("prip", "torch", "transformers", "diffusers", "lightning")


def write_refiner(folder: Path, model: PripModel, processor: PripProcessor, record: dict[str, Any]) -> None:
    """Write a checkpoint for Refiner.from_pretrained, with `record` as training.json."""

    def write(temporary: Path) -> None:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        replace_text(temporary / "training.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    replace_folder(folder, write)


def publish_refiner(folder: Path, repository: str, private: bool) -> str:
    """Publish a folder written by `write_refiner`, with a model card of its training; return the commit."""
    card = refiner_card(repository, read_json(folder / "training.json"))
    replace_text(folder / "README.md", card)
    return publish_folder(folder, repository, private)


def publish_folder(folder: Path, repository: str, private: bool) -> str:
    """Publish a checkpoint with its model card, log the commit and return it. Raise CheckpointError on failure."""
    commit = publish(folder, repository, private=private or None)
    _log.info("published %s as %s at commit %s", folder, repository, commit)
    return commit


def training_record(run: Path, stages: dict[str, Path], data: list[Path]) -> dict[str, Any]:
    """Return the record of a training: stages (settings, hashes of inputs, metrics), data (SHA-256) and libraries.

    Paths in it are relative to `run`, or only a last name. Stages without settings and metrics are left out.
    """
    record: dict[str, Any] = {}
    for stage, folder in stages.items():
        entry: dict[str, Any] = {}
        settings, inputs, metrics = (folder / name for name in ("settings.yaml", "inputs.json", "metrics.json"))
        if settings.is_file():
            stored = yaml.safe_load(settings.read_text(encoding="utf-8"))
            kept = {name: value for name, value in stored.items() if name not in _OF_THE_MACHINE}
            entry["seed"] = stored.get("seed")
            entry["settings"] = portable(kept, run)
        if inputs.is_file():
            entry["inputs"] = portable(json.loads(inputs.read_text(encoding="utf-8")), run)
        if metrics.is_file():
            entry["metrics"] = portable(json.loads(metrics.read_text(encoding="utf-8")), run)
        if entry:
            record[stage] = entry
    return {
        "stages": record,
        "data": {
            _relative(file, run): hashlib.sha256(file.read_bytes()).hexdigest() for file in data if file.is_file()
        },
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"""Beginning of a path of Windows: a drive, or a share."""


def portable(value: Json, run: Path) -> Json:
    """Return `value` with every path in it relative to the run, or reduced to its last name."""
    if isinstance(value, dict):
        return {name: portable(member, run) for name, member in value.items()}
    if isinstance(value, list):
        return [portable(member, run) for member in value]
    if not isinstance(value, str):
        return value
    return _portable_text(value, run)


def _portable_text(value: str, run: Path) -> str:
    """Return a text without what only the trainer should know: folders, user names, credentials in URLs."""
    scheme, separator, rest = value.partition("://")
    if separator and scheme != "file":
        parts = urlsplit(value)
        host = parts.netloc.rpartition("@")[2]
        return value if scheme == "hf" else parts._replace(netloc=host, query="", fragment="").geturl()
    if separator:
        return PurePosixPath(rest).name
    if _WINDOWS.match(value):
        return PureWindowsPath(value).name
    if value.startswith("~") or ".." in value.split("/"):
        return PurePosixPath(value).name
    return _relative(Path(value), run) if "/" in value else value


def _relative(path: Path, run: Path) -> str:
    """Return a path relative to the run, or its last name if it is an absolute path elsewhere."""
    if path.absolute().is_relative_to(run.absolute()):
        return str(Path("RUN") / path.absolute().relative_to(run.absolute()))
    return path.name if path.is_absolute() else str(path)
