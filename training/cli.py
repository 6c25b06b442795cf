"""The command prip-train: one subcommand per stage."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import docstring_parser
from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from prip.errors import InputError, PripError
from prip.loading import quiet

from .processes import process_rank

CONFIGS = Path(__file__).resolve().parent / "configs"


@dataclass(frozen=True)
class Stage:
    """Where a stage is: a module of this package with `run(settings)`, and the class of its settings."""

    module: str
    settings: str
    summary: str


STAGES = {
    "world": Stage("world", "WorldSettings", "train the miniature's frozen parts: generator, pivot encoder, rewards"),
    "prepare": Stage("prepare", "PrepareSettings", "draw images, choose the preferred ones, cache their pivots"),
    "encoder": Stage("encoder", "EncoderSettings", "warm up the preference encoder: user prompt to pivot"),
    "decoder": Stage("decoder", "DecoderSettings", "warm up the prompt decoder: pivot to system prompt"),
    "rl": Stage("rl", "RlSettings", "train the encoder end to end by PPO"),
    "export": Stage("export", "ExportSettings", "put all parts of a run together as one checkpoint"),
}


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows types and defaults, and leaves the examples' lines alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; returns the exit status: 0, 1 for a failed stage, 2 for wrong settings."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = _top_parser().parse_args(arguments[:1]).stage
    logging.basicConfig(format="%(message)s")
    logging.getLogger("prip").setLevel(logging.WARNING if process_rank() else logging.INFO)
    try:
        settings = parse_settings(name, arguments[1:])
        with quiet():
            module = importlib.import_module(f".{STAGES[name].module}", __package__)
        module.run(settings)
    except PripError as error:
        print(f"prip-train {name}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def parse_settings(name: str, arguments: Sequence[str]) -> Any:
    """Returns the settings of the stage `name`, from a config and flags, and logs them.

    Exits as argparse does on --help, --print_config and what it cannot parse. Raises InputError for values that do not
    fit.
    """
    stage = STAGES[name]
    settings_class = getattr(importlib.import_module(".settings", __package__), stage.settings)
    parser = stage_parser(name, settings_class)
    parsed = parser.parse_args(_with_preset_paths(name, arguments))
    values = vars(parser.instantiate(parsed))
    values.pop("config")
    settings = settings_class(**values)
    logging.getLogger(__name__).info("%s", parser.dump(parsed, skip_unset=False).strip())
    return settings


def stage_parser(name: str, settings_class: type) -> ArgumentParser:
    """Returns the parser of a stage: a flag for every field, and --flag / --no_flag for each bool at the top."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=f"prip-train {name}",
        description=(settings_class.__doc__ or "").strip(),
        epilog=_examples(name),
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "--config", action=ActionConfigFile, help=f"a preset ({', '.join(presets(name))}) or the path of a YAML file"
    )
    switches = {field.name: field for field in fields(settings_class) if field.type in ("bool", bool)}
    parser.add_class_arguments(settings_class, skip=set(switches))
    explanations = _field_docstrings(settings_class)
    for switch, field in switches.items():
        default = False if field.default is MISSING else field.default
        parser.add_argument(
            f"--{switch}", action=ActionYesNo(no_prefix="no_"), default=default, help=explanations[switch]
        )
    return parser


def _field_docstrings(settings_class: type) -> dict[str, str]:
    """Returns the docstrings under the fields of a settings class and of those that it extends."""
    parsed = [docstring_parser.parse_from_object(base) for base in reversed(settings_class.__mro__[:-1])]
    return {param.arg_name: param.description or "" for docstring in parsed for param in docstring.params}


def presets(name: str) -> list[str]:
    """Names of the presets that hold a config for the stage `name`."""
    return sorted(path.parent.name for path in CONFIGS.glob(f"*/{name}.yaml"))


def _with_preset_paths(name: str, arguments: Sequence[str]) -> list[str]:
    """Replaces the value of --config by the path of the preset that it names; a path stays as it is."""
    result: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag == "--config" and equals:
            result += [flag, _config_path(name, value)]
        elif result and result[-1] == "--config":
            result.append(_config_path(name, argument))
        else:
            result.append(argument)
    return result


def _config_path(name: str, value: str) -> str:
    if value in presets(name):
        return str(CONFIGS / value / f"{name}.yaml")
    if not Path(value).is_file():
        raise InputError(f"config: wanted one of {', '.join(presets(name))}, or a YAML file, got {value!r}")
    return value


def _top_parser() -> argparse.ArgumentParser:
    lines = [f"  {name:9}{stage.summary}" for name, stage in STAGES.items()]
    parser = argparse.ArgumentParser(
        prog="prip-train",
        description="Train PRIP, stage by stage:\n" + "\n".join(lines),
        epilog="examples:\n  prip-train encoder --config miniature --run runs/miniature\n  prip-train encoder --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=STAGES, metavar="stage", help="one of the above; more options follow it")
    return parser


def _examples(name: str) -> str:
    command = f"prip-train {name}"
    return "\n".join(
        [
            "examples:",
            f"  {command} --config miniature --run runs/miniature",
            f"  {command} --config miniature --run runs/miniature --resume",
            f"  {command} --config my.yaml --run runs/mine --seed 1 --device cuda",
            f"  {command} --config miniature --print_config > my.yaml",
        ]
    )
