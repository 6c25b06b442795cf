"""`prip compare`: draw the plain and the refined prompt side by side, from the same seeds, with scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_checkpoint

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
        description="Draw the plain and the refined prompt side by side, from the same seeds, with the scores that the "
        "checkpoint's rewards give the images for your prompt.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("prompt", metavar="PROMPT", help="the user prompt")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="image to write: cat.png, or new/folder/cat.png: folders are made",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image; the next ones follow (default 0)")
    parser.add_argument("--images", type=int, default=2, metavar="N", help="images of each prompt (default 2)")
    add_checkpoint(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refine, draw, score, write the picture and print the scores. Returns 0; errors of ours are for the caller.

    The refined prompt keeps to what the generator reads, as its own tokenizer counts.
    """
    from prip.loading import whole_folder
    from prip.options import check_whole
    from prip.processing import check_user_prompt

    from .before_after import Workbench
    from .files import check_target, write_atomically
    from .parts import existing
    from .sheet import draw_sheet, file_format

    prompt = check_user_prompt(arguments.prompt)
    check_whole("images", arguments.images, 1)
    format_name = file_format(arguments.output.suffix)
    folder = whole_folder(arguments.checkpoint, arguments.revision)
    check_target(arguments.output)
    existing(folder / "generator")
    existing(folder / "rewards")

    bench = Workbench.load(folder, arguments.device)
    seeds = list(range(arguments.seed, arguments.seed + arguments.images))
    columns = bench.before_after(prompt, bench.refiner.refine(prompt, seed=arguments.seed), seeds)
    write_atomically(arguments.output, draw_sheet(columns, seeds, format_name))
    width = max(len(column.title) for column in columns)
    for column in columns:
        print(f"{column.title:<{width}}  {column.prompt}")
    names = list(columns[0].scores)
    name_width = max(len(name) for name in names)
    print(f"\n{'mean score':<{name_width}}  {'plain':>9}  {'refined':>9}")
    for name in names:
        plain, refined = (sum(column.scores[name]) / len(seeds) for column in columns)
        print(f"{name:<{name_width}}  {plain:>9.3f}  {refined:>9.3f}")
    print(f"\nwritten to {arguments.output}")
    return 0
