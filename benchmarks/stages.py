"""The commands of `prip-train` as the benchmarks call them: each what remains of a stage, parts shared by links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def program(name: str) -> str:
    """Returns the command of this installation."""
    return str(Path(sys.executable).with_name(name))


def train(stage: str, config: str, run: Path, seed: int, *flags: str) -> None:
    """Runs one stage, or what remains of it."""
    command = [program("prip-train"), stage, "--config", config, "--run", str(run), "--seed", str(seed)]
    if (run / stage / "settings.yaml").is_file():
        command.append("--resume")
    print(f"# {stage} {config} {run.name}", file=sys.stderr, flush=True)
    subprocess.run([*command, "--no_progress", *flags], check=True, stdout=subprocess.DEVNULL)


def link(target: Path, source: Path) -> None:
    """Makes `target` a link to `source`. Raises SystemExit where it leads elsewhere: another run was meant before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        os.symlink(source.resolve(), target)
    elif target.resolve() != source.resolve():
        raise SystemExit(f"{target} leads to {target.resolve()}, not to {source}: choose another --out")
