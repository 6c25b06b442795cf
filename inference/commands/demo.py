"""`prip demo`: a web page for refining prompts and drawing them before and after."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prip.errors import CheckpointError, require

from .arguments import add_address, add_checkpoint, add_host_name

EXAMPLES = """examples:
  prip demo
  prip demo --port 8000 --no-open
  prip demo --checkpoint runs/miniature/checkpoint --device cuda
  prip demo --checkpoint my-name/my-refiner --generator stable-diffusion-v1-5/stable-diffusion-v1-5
  prip demo --host 0.0.0.0
  prip demo --host-name refiner.example
"""


def add_parser(subparsers: Any) -> None:
    """Register `demo` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "demo",
        help="refine and draw on a web page",
        description="Serve a web page for refining and editing prompts, and for drawing them before and after with the "
        "scores of the checkpoint's rewards. It works offline and sends your prompts nowhere.",
        epilog=EXAMPLES,
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--generator",
        metavar="ID",
        help="diffusers pipeline (folder or Hub id) or renderer (default: the checkpoint's own)",
    )
    add_address(parser, 7860)
    add_host_name(parser)
    parser.add_argument("--no-open", action="store_true", help="do not open the page in a browser")
    parser.add_argument(
        "--share", action="store_true", help="get a public address from Gradio's servers (default: off)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve until interrupted. Invalid arguments raise before torch is loaded."""
    from prip.loading.folders import whole_folder

    from ..network.listening import LOOPBACK, address, check_host_names, listen

    check_host_names(arguments.host_name)
    folder = whole_folder(arguments.checkpoint, arguments.revision)
    check_generator(arguments.generator)
    with (
        listen(arguments.host, arguments.port) as listening,
        interrupted_by_signals(),
        tempfile.TemporaryDirectory(prefix="prip-demo-", ignore_cleanup_errors=True) as folder_name,
    ):
        images = Path(folder_name).resolve()
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(images / "gradio")}
        for module in ("gradio", "PIL.Image"):
            require(module, "demo")

        from ..comparison.workbench import Workbench
        from ..page.access import PageGuard
        from ..page.layout import Page, launch
        from ..page.pictures import Easel

        print(f"loading {arguments.checkpoint} ...", flush=True)
        bench = Workbench.load(folder, arguments.device, arguments.generator)
        if arguments.host not in LOOPBACK or arguments.share:
            print("anyone who knows the address can use the page: it has no password", file=sys.stderr)
        url = address(arguments.host, listening)
        page = Page(bench, None if bench.generator is None else Easel(bench, images), arguments.checkpoint)
        guard = PageGuard(arguments.host, arguments.host_name, images)
        public = launch(page.blocks, guard, listening, arguments.share)
        print(f"{url} (press Ctrl-C to stop)", flush=True)
        if not arguments.no_open:
            webbrowser.open(public or url)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass
        finally:
            page.blocks.close(verbose=False)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, so that temporary files are removed."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handled = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # SIG_IGN under nohup
    for number in handled:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def check_generator(name: str | None) -> None:
    """Raise CheckpointError unless the name is None, "renderer", a folder or a Hub id."""
    from prip.hub.names import is_on_hub

    if name not in (None, "renderer") and not Path(name).expanduser().is_dir() and not is_on_hub(name):
        raise CheckpointError(f"generator: expected renderer, a folder or owner/name on the Hub, got {name!r}")
