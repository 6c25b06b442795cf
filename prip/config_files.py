"""YAML configs: presets by name, and files that build on each other with `extends:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command_line import meant
from .errors import InputError

EXTENDS = "extends"


@dataclass(frozen=True)
class ConfigFile:
    """A YAML file of settings."""

    path: Path
    values: Mapping[str, Any]
    """Its settings by name, without `extends`."""


def read_config_chain(config: str, presets: Mapping[str, Path]) -> list[ConfigFile]:
    """Return the files of a config in order of application: those that it extends first, `config` last.

    Args:
        config: Name of a preset or path of a YAML file, which extends another by `extends: PRESET` or `extends: FILE`.
        presets: The presets' files by name.

    Raises:
        InputError: A file is missing, is not YAML, is not a mapping, or extends itself.
    """
    chain: list[ConfigFile] = []
    name: str | None = config
    while name is not None:
        path = _find(name, presets, [file.path for file in chain])
        values = _read(path)
        base = values.pop(EXTENDS, None)
        chain.append(ConfigFile(path, values))
        name = None if base is None else str(base)
    return chain[::-1]


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

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"config: {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        content = type(values).__name__ if values else "nothing"
        raise InputError(f"config: expected a mapping of settings in {path}, got {content}")
    return values
