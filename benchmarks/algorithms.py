"""Compare PPO, GRPO and RLOO in the miniature at equal rollouts: reward and KL on the dev split, and time.

    python -m benchmarks.algorithms --run runs/miniature --out runs/algorithms --seeds 0 1 2 --steps 60

--run is a run with the stages world, prepare, encoder and decoder done: all algorithms start from its encoder and see
the same user prompts with the same image seeds. Seeds differ in prompt order and sampling. Finished runs are kept, and
stopped ones resumed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import pandas as pd

from benchmarks.common import link, make_parser, train
from prip.inference.evaluation.analysis.curves import ITERATION, read_curves

ALGORITHMS = ("ppo", "grpo", "rloo")


def train_one(algorithm: str, seed: int, arguments: argparse.Namespace) -> Path:
    """Train by one algorithm with one seed, resuming a stopped run; return the stage's folder."""
    run = arguments.out / f"{algorithm}-{seed}"
    for folder in ("parts", "data", "encoder", "decoder"):
        link(run / folder, arguments.run / folder)
    flags = [f"--algorithm={algorithm}", f"--loop.steps={arguments.steps}"]
    flags += [f"--loop.validate_every={arguments.every}", f"--loop.checkpoint_every={arguments.every}"]
    train("rl", arguments.config, run, seed, *flags, "--rollouts.preview_every=0")
    return run / "rl"


def rollouts_of_an_iteration(folder: Path) -> int:
    """Return the number of rollouts per iteration of a run."""
    table = pd.read_parquet(folder / "rollouts", columns=["iteration"])
    return int((table["iteration"] == 0).sum())


def curve(folder: Path) -> pd.DataFrame:
    """Return reward and kl on the dev split, indexed by the number of rollouts so far."""
    log = pd.DataFrame(read_curves(folder.parent))
    return log[["reward", "kl"]].set_axis((log[ITERATION] * rollouts_of_an_iteration(folder)).astype(int))


def spread(values: list[float], digits: int = 3) -> str:
    """Format mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} +- {deviation:.{digits}f}"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run with world, prepare, encoder and decoder done")
    parser.add_argument("--out", type=Path, required=True, help="folder of the compared runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default: 0 1 2)")
    parser.add_argument("--steps", type=int, default=60, help="iterations per run (default: 60)")
    parser.add_argument("--every", type=int, default=10, help="iterations between measurements (default: 10)")
    parser.add_argument("--config", default="miniature", help="preset of rl (default: miniature)")
    parser.add_argument("--algorithms", nargs="+", choices=ALGORITHMS, default=ALGORITHMS, help="default: all")
    arguments = parser.parse_args()
    print(f"{'algorithm':10} {'rollouts':>8}  {'reward on dev':>16}  {'KL per token':>16}", flush=True)
    for algorithm in arguments.algorithms:
        folders = [train_one(algorithm, seed, arguments) for seed in arguments.seeds]
        curves = [curve(folder) for folder in folders]
        for rollouts in curves[0].index:
            rewards, divergences = ([each.loc[rollouts, name] for each in curves] for name in ("reward", "kl"))
            print(f"{algorithm:10} {rollouts:8,}  {spread(rewards):>16}  {spread(divergences):>16}", flush=True)
        ends = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in folders]
        best = spread([end["best"]["dev_reward"] for end in ends])
        seconds = spread([end["seconds"] for end in ends], 0)
        print(f"{algorithm:10} best reward on dev {best}, {seconds} s", flush=True)


if __name__ == "__main__":
    main()
