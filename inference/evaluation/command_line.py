"""The settings of an evaluation as the command line changes those of a config."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from prip.errors import InputError

from .kinds.registry import PROMPT_SETS, REFINERS
from .settings import EvaluationSettings, read_settings

FILE_KIND = "file"


def settings_from(arguments: argparse.Namespace) -> EvaluationSettings:
    """Returns the settings that the command line asks for. Raises InputError where they do not hold."""
    prompts = arguments.prompts
    settings = read_settings(
        arguments.config,
        images_per_prompt=arguments.images_per_prompt,
        prompt_limit=arguments.prompt_limit,
        prompts=None if prompts is None else prompts_entry(prompts),
    )
    added = dict(refiner_entry(text) for text in arguments.refiner)
    chosen = settings.selected(arguments.refiners, arguments.generators, arguments.scorers)
    return replace(chosen, refiners={**chosen.refiners, **added})


def prompts_entry(text: str) -> dict[str, Any]:
    """Returns the entry of a prompt set that is written as KIND, KIND:PLACE or the path of a file."""
    if Path(text).is_file():
        return {"kind": FILE_KIND, "place": text}
    return _entry("prompts", text, PROMPT_SETS, "place")


def refiner_entry(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the entry of a refiner that is written as a preset's NAME, NAME=KIND or NAME=KIND:PLACE."""
    name, equals, rest = text.partition("=")
    if equals:
        kind = rest.partition(":")[0]
        return name, _entry(f"refiner {name!r}", rest, REFINERS, "text" if kind == "suffix" else "place")
    import yaml

    presets = resources.files("prip.inference").joinpath("configs").joinpath("refiners")
    known = sorted(one.name.removesuffix(".yaml") for one in presets.iterdir() if one.name.endswith(".yaml"))
    if name not in known:
        raise InputError(f"refiner {name!r}: wanted one of {', '.join(known)}, or NAME=KIND:PLACE")
    return name, yaml.safe_load(presets.joinpath(f"{name}.yaml").read_text(encoding="utf-8"))


def _entry(what: str, text: str, kinds: Mapping[str, str], place: str) -> dict[str, Any]:
    kind, colon, rest = text.partition(":")
    if kind not in kinds:
        raise InputError(f"{what}: wanted KIND or KIND:PLACE with a kind among {', '.join(kinds)}, got {text!r}")
    return {"kind": kind, place: rest} if colon else {"kind": kind}
