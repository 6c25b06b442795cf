"""`prip evaluate`: measure refiners on the miniature, by judges that took no part in training."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prip.errors import InputError, require

if TYPE_CHECKING:
    from prip.protocols import Generator

    from .parts import Parts

EXAMPLES = """examples:
  prip evaluate --config miniature --json evaluation.json
  prip evaluate --config miniature --json runs/miniature/evaluation.json --run runs/miniature
  prip evaluate --config miniature --json dev.json --split dev --refiners none warmup rl --generators diffusion
  prip evaluate --config my.yaml --json evaluation.json --checkpoint my-checkpoint --markdown evaluation.md
"""


def add_parser(subparsers: Any) -> None:
    """Register `evaluate` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure refiners on the miniature",
        description="Measure refiners on prompts that training has not seen, by judges that took no part in training. "
        "Intervals and p-values come from resampling subjects.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default="miniature", help="preset (miniature, smoke) or YAML file")
    parser.add_argument("--json", required=True, type=Path, metavar="FILE", help="where the result goes")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="where the tables go, in Markdown")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", default="prip-mini", help="embedded, folder or Hub id (default prip-mini)")
    source.add_argument("--run", type=Path, dest="training_run", metavar="RUN", help="a training run in its place")
    parser.add_argument("--revision", help="branch, tag or commit of a checkpoint on the Hub")
    parser.add_argument("--split", default="test", choices=["test", "dev"], help="which prompts (default test)")
    parser.add_argument(
        "--refiners",
        nargs="+",
        metavar="NAME",
        help="of none, random, warmup, rl, best (default all; none is always in)",
    )
    parser.add_argument("--generators", nargs="+", metavar="NAME", help="of diffusion, renderer (default both)")
    parser.add_argument("--images-per-prompt", type=int, metavar="N", help="in place of the config's")
    parser.add_argument("--seed", type=int, default=0, help="of phrasings, images and resampling (default 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU when there is one)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, write the result and print its tables. Returns 0; errors of ours are for the caller."""
    from .evaluation.protocol import GENERATORS, REFINERS, check_seed, evaluation_prompts, read_settings
    from .files import check_target, write_atomically
    from .parts import Parts, existing

    began = time.monotonic()
    settings = read_settings(arguments.config, images_per_prompt=arguments.images_per_prompt)
    names = _selected("refiners", arguments.refiners, REFINERS, always="none")
    generator_names = _selected("generators", arguments.generators, GENERATORS)
    if "diffusion" in generator_names:
        require("diffusers", "generate")
    prompts = evaluation_prompts(arguments.split, settings, check_seed(arguments.seed))
    for target in filter(None, (arguments.json, arguments.markdown)):
        check_target(target)
    named = arguments.training_run is None
    if not named and arguments.revision is not None:
        raise InputError("revision must be left out with --run")
    parts = (
        Parts.of_checkpoint(arguments.checkpoint, arguments.revision) if named else Parts.of_run(arguments.training_run)
    )

    from prip.miniature.judges import load_judges
    from prip.places import as_device

    from .evaluation.refiners import make_refiners
    from .evaluation.run import agreement_on_renders, evaluate
    from .evaluation.table import tables, to_markdown, to_text

    device = str(as_device(arguments.device))
    judges = load_judges(existing(parts.readers), device)
    side = judges.truth.reader.image_size
    generators = {name: _load_generator(name, parts, side, device) for name in generator_names}
    refiners = make_refiners(names, parts, device)
    found = evaluate(
        prompts,
        refiners,
        generators,
        judges._asdict(),
        settings,
        arguments.seed,
        with_best="best" in names,
        progress=True,
    )
    examples = found.pop("examples")
    agreement = agreement_on_renders(judges.truth, prompts, settings.agreement_images, side, arguments.seed)
    about = {
        "checkpoint": arguments.checkpoint if named else str(arguments.training_run),
        "split": arguments.split,
        "seed": arguments.seed,
        "subjects": len({prompt.subject for prompt in prompts}),
        "config": arguments.config,
        "settings": asdict(settings),
        "seconds": round(time.monotonic() - began, 1),
    }
    result = {**found, "agreement": agreement, "about": about, "examples": examples}
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(arguments.json, (text + "\n").encode())
    made = tables(result)
    if arguments.markdown is not None:
        write_atomically(arguments.markdown, to_markdown(made).encode())
    print(to_text(made))
    print(f"\n{arguments.split} split, {about['subjects']} subjects, {about['seconds']:.0f} s")
    print(f"written to {arguments.json}")
    return 0


def _selected(option: str, given: Sequence[str] | None, known: Sequence[str], always: str | None = None) -> list[str]:
    """Return the known names that were asked for, all when None, in their own order. Raises InputError for others."""
    wanted = set(known if given is None else given)
    unknown = sorted(wanted - set(known))
    if unknown:
        raise InputError(f"{option} must be of {', '.join(known)}; {', '.join(unknown)} came")
    return [name for name in known if name in wanted or name == always]


def _load_generator(name: str, parts: Parts, side: int, device: str) -> Generator:
    """Load a generator whose images the judges can read: `side` pixels wide and high."""
    from prip.generators import load_generator

    from .parts import existing

    if name == "renderer":
        return load_generator("renderer", size=side)
    return load_generator(str(existing(parts.generator)), device=device)
