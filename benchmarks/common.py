"""What the benchmarks share: parsers, Markdown tables, training as far as it is not done, and evaluations."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from prip.inference.evaluation.settings import CONFIGS


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a module's docstring as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def table_head(names: Iterable[str]) -> str:
    """Return the first two lines of a Markdown table."""
    names = list(names)
    return f"{table_row(names)}\n{table_row(['---'] * len(names))}"


def table_row(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def program(name: str) -> str:
    """Return the path of a command of this installation."""
    return str(Path(sys.executable).with_name(name))


def train(stage: str, config: str, run: Path, seed: int, *flags: str) -> None:
    """Run one stage, resuming a stopped one."""
    command = [program("prip-train"), stage, "--config", config, "--run", str(run), "--seed", str(seed)]
    if (run / stage / "settings.yaml").is_file():
        command.append("--resume")
    print(f"# {stage} {config} {run.name}", file=sys.stderr, flush=True)
    subprocess.run([*command, "--no_progress", *flags], check=True, stdout=subprocess.DEVNULL)


def evaluate(settings: dict[str, Any], run: Path, out: Path) -> dict[str, Any]:
    """Run `prip evaluate` in OUT/evaluation with these settings, over an earlier evaluation; return its summary."""
    file, folder = out / "evaluation.yaml", out / "evaluation"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    command = [program("prip"), "evaluate", "--config", str(file), "--run", str(run), "--out", str(folder)]
    subprocess.run([*command, "--overwrite"], check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def miniature_evaluation() -> dict[str, Any]:
    """Return the settings of the preset `miniature` of `prip evaluate`."""
    return yaml.safe_load((CONFIGS / "miniature.yaml").read_text(encoding="utf-8"))


def link(target: Path, source: Path) -> None:
    """Make `target` a link to `source`; exit if it already leads elsewhere, to an earlier run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        os.symlink(source.resolve(), target)
    elif target.resolve() != source.resolve():
        raise SystemExit(f"{target} leads to {target.resolve()}, not to {source}: choose another --out")
