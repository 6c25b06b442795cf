"""`prip demo`: a page on which prompts are refined and drawn before and after."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from prip.errors import CheckpointError, require

from .arguments import add_address, add_checkpoint

EXAMPLES = """examples:
  prip demo
  prip demo --port 8000 --no-open
  prip demo --checkpoint runs/miniature/checkpoint --device cuda
  prip demo --checkpoint my-name/my-refiner --generator stable-diffusion-v1-5/stable-diffusion-v1-5
  prip demo --host 0.0.0.0
"""


def add_parser(subparsers: Any) -> None:
    """Register `demo` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "demo",
        help="refine and draw on a page",
        description="Serve a page on which prompts are refined, edited and drawn before and after, with the scores of "
        "the checkpoint's rewards. It works offline, and tells nobody what is typed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--generator",
        metavar="ID",
        help="a diffusers pipeline, by folder or Hub id, or renderer (default the checkpoint's own)",
    )
    add_address(parser, 7860)
    parser.add_argument("--no-open", action="store_true", help="do not open the page in a browser")
    parser.add_argument(
        "--share", action="store_true", help="let Gradio's servers give it a public address (default: off)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted. Returns 0; errors of ours are for the caller, bad input's before torch is loaded."""
    from prip.loading import whole_folder

    from .listening import LOOPBACK, address, listen

    folder = whole_folder(arguments.checkpoint, arguments.revision)
    check_generator(arguments.generator)
    with listen(arguments.host, arguments.port) as listening:
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        for module in ("gradio", "PIL.Image"):
            require(module, "demo")

        from .before_after import Workbench
        from .page.layout import Page, launch
        from .page.pictures import Easel

        print(f"loading {arguments.checkpoint} ...", flush=True)
        bench = Workbench.load(folder, arguments.device, arguments.generator)
        if arguments.host not in LOOPBACK or arguments.share:
            print("everybody who knows the address can use the page, and there is no password", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="prip-demo-") as images:
            easel = None if bench.generator is None else Easel(bench, Path(images).resolve())
            page = Page(bench, easel, arguments.checkpoint)
            print(f"{address(arguments.host, listening)} (Ctrl-C ends it)", flush=True)
            launch(page.blocks, arguments.host, listening, images, not arguments.no_open, arguments.share)
    return 0


def check_generator(name: str | None) -> None:
    """Raise CheckpointError unless a generator's name is a folder, a Hub id, the renderer or None."""
    from prip.hub.names import is_on_hub

    if name not in (None, "renderer") and not Path(name).expanduser().is_dir() and not is_on_hub(name):
        raise CheckpointError(f"unknown generator {name!r}: neither a folder nor an owner/name on the Hub")
