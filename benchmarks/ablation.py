"""The paper's ablations in the miniature (Table 4): full, without preferred images, without pivot; several seeds.

    python benchmarks/ablation.py --run runs/miniature --out runs/ablation --seeds 0 1 2
    python benchmarks/ablation.py --run runs/miniature --out runs/ablation --seeds 0 1 2 --rl

--run is a run whose stages world and prepare are done: every ablation reads its parts and data. Each stage is a command
of its own, and one that is done is not done again, so that the runner can be stopped and started at will, or once for
each seed at the same time and then for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
from scipy.stats import t as student_t

VARIANTS = {
    "full": ("preferred", "image"),
    "without preferred images": ("random", "image"),
    "without pivot": ("preferred", "none"),
}
"""Name: the settings encoder.images and decoder.pivot."""


def program(name: str) -> str:
    """The command of this installation."""
    return str(Path(sys.executable).with_name(name))


def train(stage: str, config: str, run: Path, seed: int, *flags: str) -> None:
    """Runs one stage, or what remains of it."""
    command = [
        program("prip-train"),
        stage,
        "--config",
        config,
        "--run",
        str(run),
        "--seed",
        str(seed),
        "--no_progress",
    ]
    if (run / stage / "settings.yaml").is_file():
        command.append("--resume")
    subprocess.run([*command, *flags], check=True, stdout=subprocess.DEVNULL)


def link(target: Path, source: Path) -> None:
    """Makes `target` a link to `source`. Raises SystemExit where it leads elsewhere: another run was meant before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        os.symlink(source.resolve(), target)
    elif Path(os.readlink(target)) != source.resolve():
        raise SystemExit(f"{target} leads to {os.readlink(target)}, not to {source}: choose another --out")


def train_variant(name: str, seed: int, arguments: argparse.Namespace) -> Path:
    """Trains one variant with one seed and returns its run. Parts that variants have in common are trained once."""
    images, pivot = VARIANTS[name]
    run = arguments.out / f"{name.replace(' ', '-')}-{seed}"
    for folder in ("parts", "data"):
        link(run / folder, arguments.run / folder)
    for stage, setting in (("encoder", images), ("decoder", pivot)):
        shared = arguments.out / "shared" / f"{stage}-{setting}-{seed}"
        link(shared / "data", arguments.run / "data")
        flag = "--images" if stage == "encoder" else "--pivot"
        train(stage, arguments.config, shared, seed, f"{flag}={setting}")
        link(run / stage, shared / stage)
    if arguments.rl:
        steps = [] if arguments.rl_steps is None else [f"--loop.steps={arguments.rl_steps}"]
        train("rl", arguments.config, run, seed, *steps)
    return run


def measure(run: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Mean of the judge `truth` on the diffusion generator, by refiner."""
    refiners = ["none", "warmup", *(["rl"] if arguments.rl else [])]
    file = run / f"evaluation-{'-'.join(refiners)}.json"
    if not file.is_file():
        command = [program("prip"), "evaluate", "--config", arguments.config, "--json", str(file), "--run", str(run)]
        command += ["--refiners", *refiners, "--generators", "diffusion"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return {row["refiner"]: row["mean"] for row in rows if row["judge"] == "truth"}


def in_words(values: list[float]) -> str:
    """Mean, 95 % interval over training seeds by Student's t, and the values."""
    each = " ".join(f"{value:.3f}" for value in values)
    if len(values) < 2:
        return each
    mean, error = statistics.mean(values), statistics.stdev(values) / len(values) ** 0.5
    reach = float(student_t.ppf(0.975, len(values) - 1)) * error
    return f"{mean:.3f} ({mean - reach:.3f} to {mean + reach:.3f})   each {each}"


def learning_curve(run: Path) -> list[tuple[int, float]]:
    """Iteration and gain on the dev split, as rl logged them."""
    log = pd.read_csv(run / "rl" / "logs" / "metrics.csv").dropna(subset=["dev_reward"])
    return list(zip(log["step"].astype(int) + 1, log["dev_reward"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run whose stages world and prepare are done")
    parser.add_argument("--out", type=Path, required=True, help="folder of the ablations' runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default: 0 1 2)")
    parser.add_argument("--config", default="miniature", help="preset of all stages (default: miniature)")
    parser.add_argument("--rl", action="store_true", help="train with reinforcement learning too")
    parser.add_argument("--rl-steps", type=int, metavar="N", help="iterations of it, in place of the preset's")
    arguments = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    for name in VARIANTS:
        curves = []
        for seed in arguments.seeds:
            run = train_variant(name, seed, arguments)
            for refiner, mean in measure(run, arguments).items():
                found.setdefault(name, {}).setdefault(refiner, []).append(mean)
            if arguments.rl:
                curves.append(learning_curve(run))
        for refiner, values in found[name].items():
            print(f"{name:26} {refiner:8} {in_words(values)}", flush=True)
        for points in zip(*curves, strict=True):
            gains = " ".join(f"{gain:+.3f}" for _, gain in points)
            print(f"{name:26} iteration {points[0][0]:4}   gain on dev {gains}", flush=True)
    for name in list(VARIANTS)[1:]:
        for refiner, values in found[name].items():
            differences = [full - own for full, own in zip(found["full"][refiner], values, strict=True)]
            print(f"full - {name:26} {refiner:8} {in_words(differences)}")


if __name__ == "__main__":
    sys.exit(main())
