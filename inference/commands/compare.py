"""`prip compare`: draw the plain and the refined prompt side by side, from the same seeds, with scores."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_checkpoint, text

if TYPE_CHECKING:
    from ..comparison.sheet import Column

EXAMPLES = """examples:
  prip compare "a cat" -o cat.png
  prip compare "a rocket in winter" -o rocket.png --images 4 --seed 7
  prip compare "a cat" -o cat.png --checkpoint my-checkpoint --device cuda
"""


def add_parser(subparsers: Any) -> None:
    """Register `compare` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "compare",
        help="draw a prompt plain and refined",
        description="Draw the plain and the refined prompt side by side, from the same seeds, with the scores of the "
        "checkpoint's rewards for your prompt.",
        epilog=EXAMPLES,
    )
    parser.add_argument("prompt", type=text, metavar="PROMPT", help="the user prompt")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="image to write, such as cat.png; missing folders are created",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image; the next ones follow (default 0)")
    parser.add_argument("--images", type=int, default=2, metavar="N", help="images of each prompt (default 2)")
    add_checkpoint(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Refine, draw, score, write the picture and print the scores. PripErrors are left to the caller.

    The refined prompt fits the generator's token limit, as counted by its own tokenizer.
    """
    from prip.files import check_target, write_output
    from prip.loading.folders import refiner_folder, whole_folder
    from prip.options import check_whole
    from prip.pictures import left_out
    from prip.text.prompts import check_user_prompt

    from ..checkpoint_parts import existing
    from ..comparison.sheet import draw_sheet, file_format
    from ..comparison.workbench import Workbench

    prompt = check_user_prompt(arguments.prompt)
    check_whole("images", arguments.images, 1)
    format_name = file_format(arguments.output.suffix)
    folder = whole_folder(arguments.checkpoint, arguments.revision)
    refiner_folder(folder)
    check_target(arguments.output)
    existing(folder / "generator")
    existing(folder / "rewards")

    print(f"loading {arguments.checkpoint} ...", file=sys.stderr, flush=True)
    bench = Workbench.load(folder, arguments.device)
    refined = bench.refiner.refine(prompt, seed=arguments.seed)
    if refined == prompt:
        print("prip compare: note: the plain and the refined prompt are identical and drawn once", file=sys.stderr)
    if unknown := left_out(refined):
        print(f"prip compare: note: the picture omits {unknown!r}, which no installed font has", file=sys.stderr)
    seeds = list(range(arguments.seed, arguments.seed + arguments.images))
    columns = bench.before_after(prompt, refined, seeds, progress=sys.stderr.isatty())
    write_output(arguments.output, draw_sheet(columns, seeds, format_name))
    _print_scores(columns)
    print(f"\nwritten to {arguments.output}")


def _print_scores(columns: Sequence[Column]) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    width = max(len(column.title) for column in columns)
    for column in columns:
        print(f"{column.title:<{width}}  {column.prompt}")
    names = list(columns[0].scores)
    name_width = max(map(len, ("mean score", *names)))
    print(f"\n{'mean score':<{name_width}}", *(f" {column.title:>9}" for column in columns))
    # Means are over the seeds whose images all have scores: a difference of the prompts, not of the seeds.
    pairs = list(zip(*(next(iter(column.scores.values()), ()) for column in columns), strict=True))
    scored = [row for row, scores in enumerate(pairs) if not any(map(math.isnan, scores))]
    for name in names:
        means = [sum(column.scores[name][row] for row in scored) / max(1, len(scored)) for column in columns]
        print(f"{name:<{name_width}}", *(f" {mean:>9.3f}" if scored else f" {'no score':>9}" for mean in means))
    if len(scored) < len(pairs):
        print(f"{len(pairs) - len(scored)} of {len(pairs)} seeds left out: the safety checker blackened an image")
