"""The refiner that a run ends with: a whole checkpoint, and the record of how it was made."""

from __future__ import annotations

import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from prip.files import replace_folder, replace_text
from prip.hub.model_card import refiner_card
from prip.hub.publish import publish
from prip.loading.untrusted import read_json
from prip.modeling import PripModel
from prip.processing import PripProcessor

logger = logging.getLogger(__name__)

_OF_THE_MACHINE = ("run", "resume", "overwrite", "progress", "device", "push_to_hub", "private")
_LIBRARIES = ("prip", "torch", "transformers", "diffusers", "lightning")


def write_refiner(folder: Path, model: PripModel, processor: PripProcessor, record: dict[str, Any]) -> None:
    """Writes what Refiner.from_pretrained reads, and `record` as training.json."""

    def write(temporary: Path) -> None:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        replace_text(temporary / "training.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    replace_folder(folder, write)


def publish_refiner(folder: Path, repository: str, private: bool) -> str:
    """Publishes a folder that write_refiner made, with a model card of its training; returns the commit."""
    card = refiner_card(repository, read_json(folder / "training.json"))
    replace_text(folder / "README.md", card)
    return publish_folder(folder, repository, private)


def publish_folder(folder: Path, repository: str, private: bool) -> str:
    """Publishes a checkpoint with its model card and logs where; returns the commit. Raises CheckpointError."""
    commit = publish(folder, repository, private=private or None)
    logger.info("published %s as %s at commit %s", folder, repository, commit)
    return commit


def training_record(run: Path, stages: dict[str, Path], data: list[Path]) -> dict[str, Any]:
    """Returns stages (settings, hashes of the inputs, metrics), data (SHA-256 by file) and the libraries' versions.

    stages: the folder of each; what has neither settings.yaml nor metrics.json is left out. data: files that the stages
    read. Paths are given relative to the run, or by their last name.
    """
    record: dict[str, Any] = {}
    for stage, folder in stages.items():
        entry: dict[str, Any] = {}
        settings, inputs, metrics = (folder / name for name in ("settings.yaml", "inputs.json", "metrics.json"))
        if settings.is_file():
            held = yaml.safe_load(settings.read_text(encoding="utf-8"))
            kept = {name: value for name, value in held.items() if name not in _OF_THE_MACHINE}
            entry["seed"] = held.get("seed")
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


def portable(value: Any, run: Path) -> Any:
    """Returns `value` with every path in it made to mean something on another machine."""
    if isinstance(value, dict):
        return {name: portable(own, run) for name, own in value.items()}
    if isinstance(value, list):
        return [portable(own, run) for own in value]
    if not isinstance(value, str):
        return value
    return _relative(Path(value), run) if "/" in value and "://" not in value else value


def _relative(path: Path, run: Path) -> str:
    """Returns a path as seen from the run, or its last name where it lies elsewhere on this machine."""
    if path.absolute().is_relative_to(run.absolute()):
        return str(Path("RUN") / path.absolute().relative_to(run.absolute()))
    return path.name if path.is_absolute() else str(path)
