"""The command prip-train: one subcommand per stage."""

from __future__ import annotations

import importlib
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from prip.command_line import told_warnings
from prip.errors import InputError, PripError
from prip.loading.folders import quiet

from ..runs.processes import process_rank
from ..runs.run_folder import SETTINGS_FILE, check_folder, flat
from ..settings import RunSettings
from ..settings.in_run import in_run
from .config_files import CONFIGS, presets, with_preset_paths
from .parser import StageParser, build_settings, stage_parser
from .stages import STAGES, top_parser

__all__ = ["CONFIGS", "STAGES", "main", "parse_settings", "presets"]
_NO_SETTINGS = ("config", "extends", "run", "to", "resume", "overwrite", "progress")
"""What the summary leaves out: it says where a stage runs, not what it does."""
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; returns the exit status: 0, 1 for a failed stage, 2 for wrong settings, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = top_parser().parse_args(arguments[:1]).stage
    logging.basicConfig(format="%(message)s")
    logging.getLogger("prip").setLevel(logging.WARNING if process_rank() else logging.INFO)
    try:
        settings = parse_settings(name, arguments[1:])
        if isinstance(settings, RunSettings) and name != "world" and not process_rank():
            check_folder(settings, name)  # before seconds of imports, and minutes of loading
        with told_warnings(f"prip-train {name}"):
            with quiet():
                module = importlib.import_module(f"..{STAGES[name].module}", __package__)
            module.run(settings)
    except PripError as error:
        print(f"prip-train {name}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        if not process_rank():
            print(f"\nprip-train {name}: interrupted; to continue: {_continuing(arguments)}", file=sys.stderr)
        return 130
    return 0


def _continuing(arguments: Sequence[str]) -> str:
    """Returns the command that goes on where this one stopped: of export, which is quick, the same."""
    kept = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
    return shlex.join(["prip-train", *kept, *([] if kept[0] == "export" else ["--resume"])])


def parse_settings(name: str, arguments: Sequence[str]) -> Any:
    """Returns the settings of the stage `name`, from a config and flags, and logs them.

    Exits as argparse does on --help, --print_config and what it cannot parse. Raises InputError for values that do not
    fit.
    """
    settings_class = getattr(importlib.import_module("..settings", __package__), STAGES[name].settings)
    parser = stage_parser(name, settings_class, _examples(name))
    words = with_preset_paths(name, [_underscored(one) for one in arguments])
    parsed = parser.parse_args(words)
    built = build_settings(settings_class, parsed, parser.instantiate)
    settings = in_run(built, built.run)
    _log.info("%s", _summary(name, parser, words, parsed))
    return settings


def _summary(name: str, parser: StageParser, words: Sequence[str], parsed: Namespace) -> str:
    """In words: where all settings of a stage will lie, and which of them differ from the preset's, or the defaults."""
    used = [word for word in words if word.startswith(str(CONFIGS))]
    preset = f"preset {Path(used[-1]).parent.name}" if used else "the defaults"
    required = [f"--{field}={parsed[field]}" for field in ("run", "to") if field in parsed]
    base = parser.parse_args([text for path in used for text in ("--config", path)] + required)
    before, now = (flat(one.as_dict()) for one in (base, parsed))
    changed = [key for key in now if now[key] != before.get(key) and key.partition(".")[0] not in _NO_SETTINGS]
    place = {"world": "world/*", "export": None}.get(name, name)
    lines = [f"prip-train {name}, {preset}" + (", but for:" if changed else "")]
    lines += [f"  {key}: {_shown(now[key])}" for key in changed]
    lines += [] if place is None else [f"all settings: {Path(parsed.run) / place / SETTINGS_FILE}, or --print_config"]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    """Returns a value as it could be typed."""
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value, default=str)


def _underscored(argument: str) -> str:
    """Makes --push-to-hub the flag --push_to_hub; values stay as they are."""
    flag, equals, value = argument.partition("=")
    return f"--{flag[2:].replace('-', '_')}{equals}{value}" if flag.startswith("--") else argument


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
