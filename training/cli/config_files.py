"""Presets, and YAML files that extend each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from prip.errors import InputError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def presets(name: str) -> list[str]:
    """Names of the presets that hold a config for the stage `name`."""
    return sorted(path.parent.name for path in CONFIGS.glob(f"*/{name}.yaml"))


def preset_names(name: str) -> list[str]:
    """In words: one entry that lists the presets of a stage, or none for a stage that has none."""
    names = presets(name)
    return [f"a preset ({', '.join(names)})"] if names else []


def with_preset_paths(name: str, arguments: Sequence[str]) -> list[str]:
    """Replaces each --config by the file that it names, after the files that this one extends."""
    result: list[str] = []
    words = iter(arguments)
    for argument in words:
        flag, equals, value = argument.partition("=")
        if flag == "--config":
            for path in _chain(name, value if equals else next(words, "")):
                result += ["--config", str(path)]
        else:
            result.append(argument)
    return result


def _chain(name: str, value: str, extenders: tuple[Path, ...] = ()) -> list[Path]:
    """Returns the file that `value` names, a preset or a path, after those that it extends, the first of them first.

    extenders: the files that extend it; its path may be relative to the last one.
    """
    beside = extenders[-1].parent if extenders else Path()
    path = CONFIGS / value / f"{name}.yaml" if value in presets(name) else beside / value
    if not path.is_file():
        wanted = " or ".join([*preset_names(name), "a YAML file"])
        raise InputError(f"config: wanted {wanted}, got {value!r}")
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config: {path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(held, dict):
        raise InputError(f"config: wanted settings by name in {path}, got {type(held).__name__ if held else 'nothing'}")
    extended = held.get("extends")
    if extended is None:
        return [path]
    if path in extenders:
        raise InputError(f"config: {path} extends itself")
    return [*_chain(name, extended, (*extenders, path)), path]
