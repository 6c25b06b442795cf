"""Find the folder of a checkpoint, and read and check its configs once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, InputError
from ..hub.names import hub_files, is_on_hub, split_revision
from .untrusted import check_model_type, check_no_adapter, read_config

if TYPE_CHECKING:
    from ..hub.fetch import Choose

EMBEDDED = {"prip-mini": ("prip.checkpoints", "prip-mini", "refiner")}
"""Checkpoints that are installed with the package: name -> package and the path inside it."""

REFINER_TYPE = "prip"
"""The model_type of a refiner's config.json."""

PART_TYPES = {"encoder": "prip_preference_encoder", "decoder": "prip_prompt_decoder"}
"""The model_type of each part's config.json."""

_REFINER_FILES = ("config.json", "training.json", "README.md", "encoder/", "decoder/")


@dataclass(frozen=True)
class PartFolder:
    """The folder of one model, and its config."""

    path: Path
    config: dict[str, Any]
    """Parsed from config.json, and checked by `read_config`."""

    @classmethod
    def open(cls, path: Path, model_type: str) -> PartFolder:
        """Read the config. Raises CheckpointError unless it is that of a `model_type` and no adapter is beside it."""
        file = path / "config.json"
        config = read_config(file)
        check_model_type(config, model_type, file)
        check_no_adapter(path)
        return cls(path, config)


@dataclass(frozen=True)
class RefinerFolder:
    """The folder of a refiner and its configs, resolved and read once for all parts."""

    path: Path
    config: dict[str, Any]
    parts: dict[str, PartFolder]
    """`decoder`, and `encoder` unless the decoder reads no pivot (`pivot_length` 0)."""

    @classmethod
    def open(cls, model: str | os.PathLike[str] | RefinerFolder, revision: str | None = None) -> RefinerFolder:
        """Find a refiner and read its configs, without loading torch or transformers.

        `model` is a refiner or a whole checkpoint with one in refiner/; only the refiner is fetched from the Hub.
        Raises CheckpointError if there is no refiner or a config is missing, damaged or foreign, InputError as
        `resolve_folder` does.
        """
        if isinstance(model, RefinerFolder):
            return model
        folder = resolve_folder(model, revision, _refiner_files)
        if (folder / "refiner").is_dir() and not (folder / "config.json").exists():
            folder = folder / "refiner"
        if not (folder / "config.json").exists():
            raise CheckpointError(f"{folder} is not a PRIP checkpoint: {folder / 'config.json'} is missing")
        config = PartFolder.open(folder, REFINER_TYPE).config
        names = ["decoder"] if config.get("pivot_length") == 0 else list(PART_TYPES)
        for name in names:
            if not (folder / name).is_dir():
                raise CheckpointError(f"{folder / name} is missing")
        return cls(folder, config, {name: PartFolder.open(folder / name, PART_TYPES[name]) for name in names})


def resolve_folder(model: str | os.PathLike[str], revision: str | None = None, choose: Choose | None = None) -> Path:
    """Return the local folder of a checkpoint, after fetching it if it is on the Hub.

    Args:
        model: An embedded checkpoint, a local folder, "owner/name" or "owner/name@revision" on the Hub.
        revision: Branch, tag or commit on the Hub.
        choose: Picks the files to fetch from the names of all files of the repository; None fetches `HUB_FILES`.

    Raises:
        CheckpointError: There is no such checkpoint, or the Hub cannot be reached and the cache holds no copy.
        InputError: A revision is given twice, or for a checkpoint that is not on the Hub.
    """
    name, pinned = split_revision(str(model))
    if pinned is not None and revision is not None:
        raise InputError(f"revision: expected None for {str(model)!r}, which includes one, got {revision!r}")
    revision = pinned or revision
    path = Path(name).expanduser()
    if revision is not None and (name in EMBEDDED or path.is_dir()):
        raise InputError(f"revision: expected None for {name!r}, which is not on the Hub, got {revision!r}")
    if name in EMBEDDED:
        package, *parts = EMBEDDED[name]
        folder = Path(str(resources.files(package).joinpath(*parts)))
        if not folder.is_dir():
            raise CheckpointError(f"checkpoint {name!r} should be installed with prip, but {folder} does not exist")
        return folder
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"checkpoint {name!r} is a file; expected a folder")
    if not is_on_hub(name):
        known = f"embedded ({', '.join(sorted(EMBEDDED))})"
        raise CheckpointError(f"unknown checkpoint {name!r}: neither {known} nor a folder nor an owner/name on the Hub")
    from ..hub.fetch import fetch

    return fetch(name, revision, choose or hub_files)


def whole_folder(model: str | os.PathLike[str], revision: str | None = None, choose: Choose | None = None) -> Path:
    """Return the folder of a whole checkpoint, with generator, rewards and readers beside refiner/.

    Arguments and errors are those of `resolve_folder`.
    """
    folder = resolve_folder(model, revision, choose)
    return folder.parent if str(model) in EMBEDDED else folder


def refiner_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the path of a refiner's folder, checked as by `RefinerFolder.open`."""
    return RefinerFolder.open(model, revision).path


def part_folder(model: str | os.PathLike[str], revision: str | None = None, subfolder: str = "") -> Path:
    """Return the folder of one part of a checkpoint. Only this part is fetched from the Hub."""
    start = f"{subfolder.strip('/')}/" if subfolder else ""

    def choose(names: Sequence[str]) -> list[str]:
        return [name for name in hub_files(names) if name.startswith(start)]

    return resolve_folder(model, revision, choose) / subfolder


def _refiner_files(names: Sequence[str]) -> list[str]:
    root = "" if "config.json" in names else "refiner/"
    if f"{root}config.json" not in names:
        return []
    return [name for name in hub_files(names) if name.startswith(tuple(root + start for start in _REFINER_FILES))]
