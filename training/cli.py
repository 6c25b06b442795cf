"""The command prip-train: one subcommand per stage."""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import docstring_parser
import yaml
from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentParser, DefaultHelpFormatter, set_parsing_settings

from prip.errors import InputError, PripError
from prip.loading import quiet

from .processes import process_rank
from .settings.in_run import in_run

CONFIGS = Path(__file__).resolve().parent / "configs"


@dataclass(frozen=True)
class Stage:
    """Where a stage is: a module of this package with `run(settings)`, and the class of its settings."""

    module: str
    settings: str
    summary: str


STAGES = {
    "world": Stage("world", "WorldSettings", "train the miniature's frozen parts: generator, pivot encoder, rewards"),
    "stand-ins": Stage("stand_ins", "StandInsSettings", "write small random models and a DiffusionDB, for a rehearsal"),
    "prepare": Stage("prepare", "PrepareSettings", "draw images, choose the preferred ones, cache their pivots"),
    "rewrites": Stage("rewrites", "RewritesSettings", "make pairs of user and system prompt, for the paper's peers"),
    "encoder": Stage("encoder", "EncoderSettings", "warm up the preference encoder: user prompt to pivot"),
    "decoder": Stage("decoder", "DecoderSettings", "warm up the prompt decoder: pivot to system prompt"),
    "rl": Stage("rl", "RlSettings", "train the encoder end to end by PPO, or the decoder"),
    "tune": Stage("tune", "TuneSettings", "tune the generator itself on the rewards, as ReFL does"),
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
    parsed = parser.parse_args(_with_preset_paths(name, [_underscored(one) for one in arguments]))
    values = vars(parser.instantiate(parsed))
    del values["config"], values["extends"]
    settings = in_run(settings_class(**values), values["run"])
    logging.getLogger(__name__).info("%s", parser.dump(parsed, skip_unset=False).strip())
    return settings


def stage_parser(name: str, settings_class: type) -> ArgumentParser:
    """Returns the parser of a stage: a flag for every field, and --flag / --no_flag for each bool at the top."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=f"prip-train {name}",
        description=inspect.cleandoc(settings_class.__doc__ or ""),
        epilog=_examples(name),
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "--config", action=ActionConfigFile, help=" or ".join([*_preset_names(name), "the path of a YAML file"])
    )
    parser.add_argument(
        "--extends", help="in a YAML file: the preset or the file (beside it) whose settings it begins with (type: str)"
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


def _underscored(argument: str) -> str:
    """Makes --push-to-hub the flag --push_to_hub; values stay as they are."""
    flag, equals, value = argument.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else argument


def _preset_names(name: str) -> list[str]:
    """In words: one entry that lists the presets of a stage, or none for a stage that has none."""
    names = presets(name)
    return [f"a preset ({', '.join(names)})"] if names else []


def _with_preset_paths(name: str, arguments: Sequence[str]) -> list[str]:
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
        wanted = " or ".join([*_preset_names(name), "a YAML file"])
        raise InputError(f"config: wanted {wanted}, got {value!r}")
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"config: {path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    extended = held.get("extends") if isinstance(held, dict) else None
    if extended is None:
        return [path]
    if path in extenders:
        raise InputError(f"config: {path} extends itself")
    return [*_chain(name, extended, (*extenders, path)), path]


def _top_parser() -> argparse.ArgumentParser:
    lines = [f"  {name:11}{stage.summary}" for name, stage in STAGES.items()]
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
    lines = {
        "export": [
            f"{command} --run runs/miniature --to runs/miniature/checkpoint",
            f"{command} --run runs/miniature --to runs/miniature/checkpoint --push-to-hub owner/name --private",
        ],
        "rewrites": [
            f"{command} --config rew-syn --run runs/rew-syn",
            f"{command} --config rew-log --run runs/rew-log --resume",
        ],
        "stand-ins": [f"{command} --run runs/dry", f"{command} --run runs/dry --prompts 100 --overwrite"],
    }.get(
        name,
        [
            f"{command} --config miniature --run runs/miniature",
            f"{command} --config miniature --run runs/miniature --resume",
            f"{command} --config my.yaml --run runs/mine --seed 1 --device cuda",
            f"{command} --config miniature --print_config > my.yaml",
        ],
    )
    return "\n".join(["examples:", *(f"  {line}" for line in lines)])
