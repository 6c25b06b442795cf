"""Run the paper's ablations and strongest peers (Tables 1, 4 and 5) in the miniature, over training seeds.

    python -m benchmarks.ablation --run runs/miniature --out runs/ablation
    python -m benchmarks.ablation --run runs/miniature --out runs/ablation --rows full "without pivot" --seeds 0
    python -m benchmarks.ablation --run runs/miniature --out runs/ablation --train-only --seeds 1

--run is a run with the stages world and prepare done, whose parts and data every row uses. Stages run as separate
commands, and finished ones are kept, so that the benchmark can be stopped and restarted. Then one `prip evaluate`
measures all refiners on the same noise, and the tables are printed in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.ablation.pooled import pooled_lines, pooled_tests
from benchmarks.ablation.rows import PEERS, ROWS, TABLE_4, Runner
from benchmarks.ablation.tables import curve_lines, learning_curve, refiner_name, score_lines, test_lines
from benchmarks.common import evaluate, make_parser, miniature_evaluation
from prip.inference.evaluation.analysis.results import read_results

FIXED = {
    "random": {"kind": "random-modifiers"},
    "best suffix": {"kind": "best-suffix"},
}
"""Refiners that do not depend on a training seed."""


def evaluation_config(runner: Runner, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a config of `prip evaluate` with the refiners of every row and seed."""
    config = miniature_evaluation()
    refiners: dict[str, Any] = dict(FIXED)
    for name in arguments.rows:
        for seed in arguments.seeds:
            run = runner.folder(name, seed)
            if ROWS[name].rl == ():
                refiners[refiner_name(name, "warm-up", seed)] = ROWS[name].warm_refiner(name, run)
            if not arguments.without_rl:
                refiners[refiner_name(name, "RL", seed)] = {"kind": "prip", "place": str(run / "rl" / "refiner")}
    comparisons = []
    for seed in arguments.seeds:
        best = refiner_name("full", "RL", seed)
        others = ["none", *(name for name in refiners if name in FIXED or name.endswith(f", {seed}"))]
        if best in refiners:
            comparisons += [[other, best] for other in others if other != best]
    config |= {"refiners": refiners, "comparisons": comparisons}
    config["prompts"] |= {"per_combination": arguments.per_combination}
    return config | {"images_per_prompt": arguments.images_per_prompt}


def pooled(summary: dict[str, Any], path: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the table of tests over all seeds: against the fixed refiners and every row after RL."""
    about = summary["about"]
    scorers = [name for name, entry in about["scorers"].items() if entry["role"] != "trained against"]
    others = [(name, "") for name in about["refiners"] if name in ("none", *FIXED)]
    others += [("full", "warm-up"), *((name, "RL") for name in arguments.rows if name != "full")]
    draws, seeds = about["bootstrap_draws"], arguments.seeds
    tests = pooled_tests(read_results(path), others, list(about["generators"]), scorers, seeds, draws)
    return pooled_lines(tests, len(seeds), draws)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run with world and prepare done")
    parser.add_argument("--out", type=Path, required=True, help="folder of the rows' runs")
    parser.add_argument(
        "--rows",
        nargs="+",
        default=[*TABLE_4, *PEERS],
        choices=list(ROWS),
        metavar="ROW",
        help=f"of {', '.join(ROWS)} (default: the paper's table and its peers)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds (default: 0 1 2)")
    parser.add_argument("--config", default="miniature", help="preset of the stages (default: miniature)")
    parser.add_argument("--without-rl", action="store_true", help="warm-ups only")
    parser.add_argument("--rl-steps", type=int, metavar="N", help="iterations of RL (default: the preset's)")
    parser.add_argument("--train-only", action="store_true", help="train without evaluating")
    parser.add_argument("--per-combination", type=int, default=3, help="phrasings per combination (default: 3)")
    parser.add_argument("--images-per-prompt", type=int, default=4, help="images per prompt (default: 4)")
    arguments = parser.parse_args()
    runner = Runner(arguments.run, arguments.out, arguments.config, arguments.rl_steps)
    for seed in arguments.seeds:
        for name in arguments.rows:
            runner.train(name, seed, not arguments.without_rl)
    if arguments.train_only:
        return
    summary = evaluate(evaluation_config(runner, arguments), arguments.run, arguments.out)
    for generator in summary["about"]["generators"]:
        for scorer, entry in summary["about"]["scorers"].items():
            if entry["role"] != "trained against":
                print("\n".join(score_lines(summary, arguments.rows, arguments.seeds, generator, scorer)))
    if not arguments.without_rl:
        print("\n".join(test_lines(summary)))
        print("\n".join(pooled(summary, arguments.out / "evaluation" / "results.parquet", arguments)))
        curves = {
            name: [learning_curve(runner.folder(name, seed)) for seed in arguments.seeds] for name in arguments.rows
        }
        print("\n".join(curve_lines(curves)))


if __name__ == "__main__":
    main()
