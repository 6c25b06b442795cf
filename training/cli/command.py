"""The command prip-train: one subcommand per stage."""

from __future__ import annotations

import importlib
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from jsonargparse import Namespace

from prip.command_line import printed_warnings
from prip.config_files import EXTENDS, read_config_chain
from prip.errors import InputError, PripError, broken_packages
from prip.loading.strict import quiet
from prip.settings_parser import SettingsParser, build_settings, check_names

from ..runs.processes import process_rank
from ..runs.run_folder import SETTINGS_FILE, check_folder, check_packages, flat, hold_lines
from ..settings import ExportSettings, PrepareSettings, RlSettings, RunSettings
from ..settings.shared import in_run
from .stages import CONFIGS, SHOWN_BY_ALL, STAGES, preset_files, top_parser

__all__ = ["CONFIGS", "STAGES", "main", "parse_settings", "preset_files"]
_NO_SETTINGS = ("config", EXTENDS, "run", "to", "resume", "overwrite", "progress")
"""Options that the summary leaves out: they say where and how a stage runs, not what it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return the exit status: 0 done, 1 failed, 2 wrong settings, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = top_parser().parse_args(arguments[:1]).stage
    logging.basicConfig(format="%(message)s")
    logging.getLogger("prip").setLevel(logging.WARNING if process_rank() else logging.INFO)
    try:
        settings = parse_settings(name, arguments[1:])
        if isinstance(settings, RunSettings):  # before imports and loading, which take seconds to minutes
            check_packages(settings)
            if name != "world" and not process_rank():
                check_folder(settings, name)
        with printed_warnings(f"prip-train {name}"), broken_packages():
            with quiet():
                module = importlib.import_module(f"..{STAGES[name].module}", __package__)
            module.run(settings)
    except PripError as error:
        print(f"prip-train {name}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        if not process_rank():
            command = _resuming_command(arguments)
            print(f"\nprip-train {name}: interrupted; to continue: {command}", file=sys.stderr)
        return 130
    return 0


def _resuming_command(arguments: Sequence[str]) -> str:
    """Return the command that continues an interrupted one; export starts over."""
    kept = list(arguments)
    for number, argument in reversed(list(enumerate(arguments))):
        flag = argument.partition("=")[0]
        if flag in ("--overwrite", "--resume"):
            valued = flag == argument and [word.lower() for word in arguments[number + 1 : number + 2]]
            del kept[number : number + (2 if valued and valued[0] in ("true", "yes", "false", "no") else 1)]
    return shlex.join(["prip-train", *kept, *([] if kept[0] == "export" else ["--resume"])])


@overload
def parse_settings(name: Literal["rl"], arguments: Sequence[str]) -> RlSettings: ...
@overload
def parse_settings(name: Literal["prepare"], arguments: Sequence[str]) -> PrepareSettings: ...
@overload
def parse_settings(name: str, arguments: Sequence[str]) -> RunSettings | ExportSettings: ...
def parse_settings(name: str, arguments: Sequence[str]) -> RunSettings | ExportSettings:
    """Return the settings of stage `name` from its command line, and hold back how they differ from the preset's.

    Exit as argparse does on --help, --print_config and arguments that do not parse. Raise InputError if a config cannot
    be read or a value is out of range.
    """
    settings_class = getattr(importlib.import_module("..settings", __package__), STAGES[name].settings)
    presets = preset_files(name)
    known = [f"a preset ({', '.join(presets)})"] if presets else []
    parser = SettingsParser(
        settings_class,
        prog=f"prip-train {name}",
        epilog=_examples(name),
        first=(*SHOWN_BY_ALL, *STAGES[name].first) if STAGES[name].first else (),
        config_help=f"{' or '.join([*known, 'the path of a YAML file'])}, which may extend another: `extends: NAME`",
    )
    words = _with_extended_configs([_underscored(argument) for argument in arguments], settings_class, presets)
    parsed = parser.parse_args(words)
    built = build_settings(parser, settings_class, parsed)
    settings = in_run(built, built.run)
    hold_lines(_summary(name, parser, words, parsed))
    return settings


def _with_extended_configs(arguments: Sequence[str], settings_class: type, presets: Mapping[str, Path]) -> list[str]:
    """Replace each --config with the path of its file, preceded by those of the files that it extends."""
    result: list[str] = []
    words = iter(arguments)
    for argument in words:
        flag, equals, value = argument.partition("=")
        if flag == "--config":
            for path, values in read_config_chain(value if equals else next(words, ""), presets).items():
                check_names(settings_class, values)
                result += ["--config", str(path)]
        else:
            result.append(argument)
    return result


def _summary(name: str, parser: SettingsParser, words: Sequence[str], parsed: Namespace) -> str:
    """Say which settings differ from the preset's, or from the defaults, and where all of them are saved."""
    configs = [word for word in words if word.startswith(str(CONFIGS))]
    source = f"preset {Path(configs[-1]).parent.name}" if configs else "the defaults"
    required = [f"--{field}={parsed[field]}" for field in ("run", "to") if field in parsed]
    base = parser.parse_args([text for path in configs for text in ("--config", path)] + required)
    before, now = (flat(namespace.as_dict()) for namespace in (base, parsed))
    changed = [key for key in now if now[key] != before.get(key) and key.partition(".")[0] not in _NO_SETTINGS]
    folder = {"world": "world/*", "export": None}.get(name, name)
    lines = [f"prip-train {name}, {source}" + (", except:" if changed else "")]
    lines += [f"  {key}: {_typed(now[key])}" for key in changed]
    lines += [] if folder is None else [f"all settings: {Path(parsed.run) / folder / SETTINGS_FILE}, or --print_config"]
    return "\n".join(lines)


def _typed(value: Any) -> str:
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value, default=str)


def _underscored(argument: str) -> str:
    """Turn --push-to-hub into --push_to_hub, and leave --help-all and values as they are."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--") or flag == "--help-all":
        return argument
    return f"--{flag[2:].replace('-', '_')}{equals}{value}"


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
