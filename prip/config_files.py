"""YAML configs: presets by name, and files that build on each other with `extends:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError, meant
from .text_files import read_text

EXTENDS = "extends"


def read_config_chain(config: str, presets: Mapping[str, Path]) -> dict[Path, dict[str, Any]]:
    """Return the settings in each file of a config, without `extends`: first the files that it extends, last its own.

    Args:
        config: Name of a preset or path of a YAML file, which extends another by `extends: PRESET` or `extends: FILE`.
        presets: The presets' files by name.

    Raises:
        InputError: A file is missing, is not YAML, is not a mapping, or extends itself.
    """
    chain: dict[Path, dict[str, Any]] = {}
    name: str | None = config
    while name is not None:
        path = _find(name, presets, list(chain))
        chain[path] = _read(path)
        base = chain[path].pop(EXTENDS, None)
        name = None if base is None else str(base)
    return dict(reversed(chain.items()))


def _find(name: str, presets: Mapping[str, Path], extenders: Sequence[Path]) -> Path:
    """Return the file of a preset, or the file at a path relative to the extending file or the working directory."""
    folders = [extenders[-1].parent, Path()] if extenders else [Path()]
    candidates = [presets[name]] if name in presets else [folder / name for folder in folders]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        known = [f"a preset ({', '.join(presets)})"] if presets else []
        expected = " or ".join([*known, "a YAML file"])
        raise InputError(f"config: expected {expected}, got {name!r}{meant(name, list(presets))}")
    if path in extenders:
        raise InputError(f"config: {path} extends itself")
    return path


def _read(path: Path) -> dict[str, Any]:
    import yaml

    text = read_text(path, f"config: {path}")
    try:
        values = yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"config: {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        content = type(values).__name__ if values else "nothing"
        raise InputError(f"config: expected a mapping of settings in {path}, got {content}")
    return values
