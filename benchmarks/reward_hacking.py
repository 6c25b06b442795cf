"""Check for reward hacking: whether RL still raises its rewards when held-out judges no longer agree.

    prip-train rl --config miniature --run runs/miniature --loop.keep_parts true
    python -m benchmarks.reward_hacking --run runs/miniature --out runs/reward_hacking

Evaluates every encoder that rl kept, on the dev split, by the rewards it was trained on, by judges that took no part,
and by the diversity of the images. Prints the series and the best iteration of each, and writes RUN/rl/judged.json,
which `prip evaluate --run RUN` plots in its report.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import evaluate, make_parser, miniature_evaluation, table_head, table_row

GENERATOR = "diffusion"


def steps_of(run: Path, every: int) -> dict[int, Path]:
    """Return the encoders that rl kept, by iteration: every `every`-th, and the first and last."""
    kept = sorted((run / "rl" / "history").glob("step-*"))
    if not kept:
        raise SystemExit(f"{run / 'rl' / 'history'} is empty: train rl with --loop.keep_parts true")
    chosen = {index: path for index, path in enumerate(kept) if index % every == 0 or index == len(kept) - 1}
    return {int(path.name.removeprefix("step-")): path for path in chosen.values()}


def config(run: Path, steps: dict[int, Path], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a config of `prip evaluate` with one refiner per iteration."""
    settings = miniature_evaluation()
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
    """Return the series by name: each scorer's mean, and the diversity within prompts (None for one image per prompt)
    and across prompts."""
    means = {(row["refiner"], row["scorer"]): row["mean"] for row in summary["rows"] if row["category"] == "all"}
    diversity = {row["refiner"]: row for row in summary["diversity"]}
    columns = {scorer: [means[str(step), scorer] for step in steps] for scorer in summary["about"]["scorers"]}
    for name in ("within_prompt", "across_prompts"):
        columns[name] = [diversity[str(step)][name] for step in steps]
    return {"iteration": list(steps), **columns}


def at_least_1(text: str) -> int:
    """Parse a flag as a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run whose rl was trained with --loop.keep_parts true")
    parser.add_argument("--out", type=Path, required=True, help="folder of the evaluation")
    parser.add_argument("--every", type=at_least_1, default=1, metavar="N", help="evaluate every Nth encoder")
    parser.add_argument("--per-combination", type=int, default=2, help="phrasings per combination (default: 2)")
    parser.add_argument("--images-per-prompt", type=int, default=2, help="images per prompt (default: 2)")
    arguments = parser.parse_args()
    steps = steps_of(arguments.run, arguments.every)
    arguments.out.mkdir(parents=True, exist_ok=True)
    summary = evaluate(config(arguments.run, steps, arguments), arguments.run, arguments.out)
    judged = series(summary, steps)
    (arguments.run / "rl" / "judged.json").write_text(json.dumps(judged, indent=1) + "\n", encoding="utf-8")
    names = list(judged)
    print(table_head(names))
    for iteration, *values in zip(*judged.values(), strict=True):
        print(table_row([iteration, *("-" if value is None else f"{value:.3f}" for value in values)]))
    for name in names[1:]:
        points = [(value, -step) for value, step in zip(judged[name], steps, strict=True) if value is not None]
        if points:
            print(f"{name}: largest after iteration {-max(points)[1]}")


if __name__ == "__main__":
    main()
