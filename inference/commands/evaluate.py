"""`prip evaluate`: does refinement make better pictures, and by how much?"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from prip.errors import InputError, require

from .arguments import add_device, add_revision, add_switch

EXAMPLES = """examples:
  prip evaluate --config miniature --out evaluation
  prip evaluate --config miniature --out runs/miniature/evaluation --run runs/miniature
  prip evaluate --config miniature --out dev --refiners warmup rl --generators diffusion --images-per-prompt 2
  prip evaluate --config miniature --out mine --refiner mine=prip:my-checkpoint --refiner house="suffix:golden hour"
  prip evaluate --config additions --out additions --prompts real-prompts:my-prompts.txt
  prip evaluate --config hpsv2 --out hpsv2 --checkpoint owner/name --refiner promptist --prompt-limit 100

Run the same command again to resume; no image is drawn twice. With more refiners, generators or scorers in the same
folder, only what is missing is measured.
"""


def add_parser(subparsers: Any) -> None:
    """Register `evaluate` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure refiners: tables, statistics and a report",
        description="Refine the prompts of a set with several refiners, draw them from the same noise, score the "
        "images, and report with intervals and tests which refiner makes better pictures.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--config", default="miniature", help="preset or YAML file (default miniature)")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="output folder")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", default="prip-mini", help="embedded name, folder or Hub id (default prip-mini)")
    source.add_argument(
        "--run", type=Path, dest="training_run", metavar="RUN", help="training run instead of a checkpoint"
    )
    add_revision(parser)
    parser.add_argument("--prompts", metavar="SET", help="file of prompts, or a prompt set as KIND or KIND:PLACE")
    for section in ("refiners", "generators", "scorers"):
        parser.add_argument(f"--{section}", nargs="+", metavar="NAME", help=f"only these {section} of the config")
    parser.add_argument(
        "--refiner",
        action="append",
        default=[],
        metavar="NAME[=KIND:PLACE]",
        help="add a refiner: name of a preset, or a kind with its place; may be repeated",
    )
    parser.add_argument("--prompt-limit", type=int, metavar="N", help="maximum number of prompts, spread over the set")
    parser.add_argument("--images-per-prompt", type=int, metavar="N", help="overrides the config")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="image folder, which evaluations may share (default OUT/images)"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="announce and delete work in OUT that was made with other settings, except images",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of phrasings, images and resampling (default 0)")
    add_device(parser)
    parser.add_argument("--tables", action="store_true", help="print all tables, which tables.md holds as well")
    add_switch(parser, "progress", default=True, help_text="show progress bars (default true)")
    parser.add_argument("--quiet", action="store_false", dest="progress", help="no progress bars, as --no-progress")
    parser.set_defaults(run=run, to_continue="run the same command to continue")


def run(arguments: argparse.Namespace) -> None:
    """Measure, write the folder and print the headline. PripErrors are left to the caller."""
    began = time.monotonic()
    for module in ("yaml", "jsonargparse", "jinja2", "pandas", "pyarrow", "scipy", "matplotlib", "rich"):
        require(module, "evaluate")
    from ..annotation.summary import people_summary
    from ..checkpoint_parts import Parts
    from ..evaluation.analysis.curves import judged_curves
    from ..evaluation.analysis.summary import summarise
    from ..evaluation.kinds.registry import Context
    from ..evaluation.kinds.seeds import check_seed
    from ..evaluation.report import write_additions, write_report
    from ..evaluation.settings import settings_from
    from ..evaluation.work.run import IMAGES, RESULTS, Evaluation

    settings = settings_from(arguments)
    seed = check_seed(arguments.seed)
    if arguments.training_run is not None and arguments.revision is not None:
        raise InputError(f"revision: expected none with --run, got {arguments.revision!r}")
    from prip.devices import as_device

    device = str(as_device(arguments.device))
    if arguments.training_run is not None:
        parts = Parts.of_run(arguments.training_run)
    else:
        parts = Parts.of_checkpoint(arguments.checkpoint, arguments.revision)
    out: Path = arguments.out
    context = Context(parts, device, seed)
    evaluation = Evaluation(settings, context, out, arguments.images or out / IMAGES, arguments.progress)
    about = evaluation.run(arguments.overwrite)
    about |= {"config": arguments.config, "checkpoint": str(arguments.training_run or arguments.checkpoint)}
    if not settings.generators:
        write_additions(out, evaluation.additions() | {"about": about})
        return
    summary = summarise(out / RESULTS, about, evaluation.vectors(), settings.comparisons, settings.bootstrap_draws)
    summary["agreement"] = evaluation.agreement()
    summary["people"] = people_summary(out)
    summary["curves"] = None if arguments.training_run is None else judged_curves(arguments.training_run)
    summary["about"]["seconds"] = round(time.monotonic() - began, 1)
    write_report(out, summary, evaluation.images, print_all=arguments.tables)
