"""Does reinforcement learning go on to please its rewards when the judges are no longer pleased?

    prip-train rl --config miniature --run runs/miniature --loop.keep_parts true
    python -m benchmarks.reward_hacking --run runs/miniature --out runs/reward_hacking

Measures the encoder of every measurement that rl kept, on the dev split, by the rewards that it learned from,
by judges that took no part, and by the diversity of the images. Prints the series, says where each is best, and writes
RUN/rl/judged.json, which `prip evaluate --run RUN` draws in its report.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from benchmarks.stages import program

GENERATOR = "diffusion"


def steps_of(run: Path, every: int) -> dict[int, Path]:
    """Returns the encoders that rl kept, by iteration: each `every`-th, and the first and last."""
    kept = sorted((run / "rl" / "history").glob("step-*"))
    if not kept:
        raise SystemExit(f"{run / 'rl' / 'history'} holds nothing: train rl with --loop.keep_parts true")
    chosen = {place: path for place, path in enumerate(kept) if place % every == 0 or place == len(kept) - 1}
    return {int(path.name.removeprefix("step-")): path for path in chosen.values()}


def config(run: Path, steps: dict[int, Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns a config of `prip evaluate` with a refiner for each iteration."""
    preset = resources.files("prip.inference").joinpath("configs").joinpath("miniature.yaml")
    settings = yaml.safe_load(preset.read_text(encoding="utf-8"))
    settings["prompts"] |= {"split": "dev", "per_combination": arguments.per_combination}
    settings["generators"] = {GENERATOR: settings["generators"][GENERATOR]}
    refiners = {f"{step}": {"kind": "prip", "place": str(run), "encoder": str(path)} for step, path in steps.items()}
    return settings | {
        "refiners": refiners,
        "comparisons": [],
        "agreement_renders": 0,
        "images_per_prompt": arguments.images_per_prompt,
    }


def series(summary: dict[str, Any], steps: dict[int, Path]) -> dict[str, list[float | None]]:
    """Returns the series by name: each scorer's mean, and the diversity within and across prompts; None where there is
    none, as within prompts of one image."""
    means = {(row["refiner"], row["scorer"]): row["mean"] for row in summary["rows"] if row["category"] == "all"}
    diversity = {row["refiner"]: row for row in summary["diversity"]}
    found = {scorer: [means[str(step), scorer] for step in steps] for scorer in summary["about"]["scorers"]}
    for name in ("within_prompt", "across_prompts"):
        found[name] = [diversity[str(step)][name] for step in steps]
    return {"iteration": list(steps), **found}


def at_least_1(text: str) -> int:
    """Returns the whole number that a flag says. Raises ArgumentTypeError for anything else and for one below 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number of at least 1, got {text!r}")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run whose rl was trained with --loop.keep_parts true")
    parser.add_argument("--out", type=Path, required=True, help="folder of the evaluation")
    parser.add_argument("--every", type=at_least_1, default=1, metavar="N", help="each Nth of the encoders kept")
    parser.add_argument("--per-combination", type=int, default=2, help="phrasings of each combination (default 2)")
    parser.add_argument("--images-per-prompt", type=int, default=2, help="default 2")
    arguments = parser.parse_args()
    steps = steps_of(arguments.run, arguments.every)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file, folder = arguments.out / "evaluation.yaml", arguments.out / "evaluation"
    file.write_text(yaml.safe_dump(config(arguments.run, steps, arguments), sort_keys=False), encoding="utf-8")
    command = [program("prip"), "evaluate", "--config", str(file), "--out", str(folder)]
    command += ["--run", str(arguments.run), "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    judged = series(summary, steps)
    (arguments.run / "rl" / "judged.json").write_text(json.dumps(judged, indent=1) + "\n", encoding="utf-8")
    names = list(judged)
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for values in zip(*judged.values(), strict=True):
        print(f"| {values[0]} | {' | '.join('-' if value is None else f'{value:.3f}' for value in values[1:])} |")
    for name in names[1:]:
        found = [(value, step) for value, step in zip(judged[name], steps, strict=True) if value is not None]
        if found:
            print(f"{name}: largest after iteration {max(found, key=lambda one: one[0])[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
