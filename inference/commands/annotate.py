"""`prip annotate`: ask people about the images of an evaluation."""

from __future__ import annotations

import argparse
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

from prip.errors import InputError, require

from .arguments import add_address

EXAMPLES = """examples:
  prip annotate runs/evaluation --refiners none rl
  prip annotate runs/evaluation --refiners none rl --generator diffusion --items 200 --port 9000
  prip annotate runs/evaluation --task relevance --refiners none warmup rl
  prip annotate runs/evaluation --summary
  prip annotate runs/evaluation --export answers.csv
"""


def add_parser(subparsers: Any) -> None:
    """Register `annotate` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "annotate",
        help="ask people about an evaluation's images",
        description="Serve a page on which people judge the images of a finished evaluation without knowing their "
        "refiners: which of two they prefer, or how much of the prompt one shows. Every answer is saved before the "
        "page moves on; run the command again to continue.",
        epilog=EXAMPLES,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output of prip evaluate (--out)")
    parser.add_argument(
        "--task",
        default="preference",
        choices=["preference", "relevance"],
        help="which of two images is better, or how relevant one is to the prompt (default preference)",
    )
    parser.add_argument(
        "--refiners", nargs="+", metavar="NAME", help="refiners to compare, two for preference (default all)"
    )
    parser.add_argument("--generator", metavar="NAME", help="generator of the images (default all)")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images of prip evaluate (default FOLDER/images)")
    parser.add_argument("--items", type=int, default=100, metavar="N", help="number of questions (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample, the order and the sides (default 0)")
    add_address(parser, 8765)
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write all answers as CSV instead of serving")
    parser.add_argument("--summary", action="store_true", help="print the summary of the answers instead of serving")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve the page, or write and print the answers. PripErrors are left to the caller.

    The folder is checked before the extra.
    """
    from ..annotation.items import results_of

    results_of(arguments.folder)
    if arguments.export is not None or arguments.summary:
        _export(arguments)
    else:
        _serve(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from prip.files import check_target, write_output

    from ..annotation.answers import to_csv
    from ..annotation.summary import standing_answers, summarise
    from ..evaluation.analysis.people import people_tables
    from ..evaluation.analysis.table import print_tables

    answers, others = standing_answers(arguments.folder)
    if not answers:
        raise InputError(f"{arguments.folder} has no answers yet; collect them with: prip annotate {arguments.folder}")
    if others:
        print(f"left out: {others} answers about images that this evaluation no longer holds", file=sys.stderr)
    if arguments.export is not None:
        check_target(arguments.export)
        write_output(arguments.export, to_csv(answers).encode())
        print(f"{len(answers)} answers written to {arguments.export}")
    if arguments.summary:
        print_tables(people_tables(summarise(answers)))


def _serve(arguments: argparse.Namespace) -> None:
    for module in ("fastapi", "uvicorn", "pyarrow"):
        require(module, "annotate")
    from ..annotation.answers import AnswerLog
    from ..annotation.items import choose_refiners, draw_sample, read_rows
    from ..annotation.server import serve
    from ..annotation.study import Study
    from ..network.listening import LOOPBACK, address, listen

    folder = arguments.folder
    rows = read_rows(folder)
    refiners = choose_refiners(rows, arguments.task, arguments.refiners)
    images = arguments.images or folder / "images"
    sample = draw_sample(
        images,
        rows,
        arguments.task,
        refiners=refiners,
        generator=arguments.generator,
        count=arguments.items,
        seed=arguments.seed,
    )
    listening = listen(arguments.host, arguments.port)
    log = AnswerLog(folder)
    print(f"{arguments.task}: {len(sample.items)} questions about {' and '.join(refiners)}")
    if sample.identical:
        print(f"left out: {sample.identical} pairs whose images are identical")
    if sample.failed:
        print(f"left out: {sample.failed} images that the evaluation could not draw")
    if arguments.host.lower() not in LOOPBACK:
        print("anyone who can reach this machine can answer: there is no password", file=sys.stderr)
    page = address(arguments.host, listening)
    print(f"{page} (press Ctrl-C to stop; every answer is saved in {log.path.parent})", flush=True)
    if not arguments.no_browser:
        threading.Thread(target=webbrowser.open, args=[page], daemon=True).start()
    try:
        serve(Study(images, arguments.task, sample, arguments.seed, log), arguments.host, listening)
    finally:
        log.close()
        listening.close()
