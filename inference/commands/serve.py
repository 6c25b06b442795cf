"""`prip serve`: a refiner, and optionally a generator, over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from prip.errors import require

from ..server.settings import ServerSettings
from .arguments import add_address, add_host_name, add_refiner

EXAMPLES = """examples:
  prip serve
  prip serve --images
  prip serve --port 9000 --max-batch 128 --timeout 10
  prip serve --allow-origin http://localhost:3000 --root-path /prip
  PRIP_API_KEY=$(openssl rand -hex 16) prip serve --host 0.0.0.0 --host-name refiner.example
  prip serve --model my-name/my-refiner --revision v1.0 --images stabilityai/sdxl-turbo --device cuda

  curl http://127.0.0.1:8000/v1/refine -H "Content-Type: application/json" -d '{"prompt": "a cat"}'
"""

SETTINGS = {
    "--max-batch": ("max_batch", "N", "most texts to refine in one batch"),
    "--max-draw-batch": ("max_draw_batch", "N", "most images to draw in one batch"),
    "--max-wait-ms": ("max_wait_ms", "MS", "milliseconds that a batch waits to fill up"),
    "--queue-size": ("queue_size", "N", "most prompts that may wait"),
    "--timeout": ("timeout_s", "S", "seconds to answer a request"),
    "--client-timeout": ("client_timeout_s", "S", "seconds for a client to send headers or body, or to resume reading"),
    "--max-body-bytes": ("max_body_bytes", "N", "largest request body in bytes"),
}
"""Flags with the name of their ServerSettings field, metavar and meaning."""


def add_parser(subparsers: Any) -> None:
    """Register `serve` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "serve",
        help="refine and draw over HTTP",
        description="Serve a refiner over HTTP. Concurrent requests are refined in one batch; in float32 each gets the "
        "same text as from prip refine with the same seed. Ctrl-C or SIGTERM stops the server once all accepted "
        "requests are answered, a second one immediately.",
        epilog=EXAMPLES,
    )
    add_refiner(parser)
    parser.add_argument(
        "--images",
        nargs="?",
        const="",
        metavar="GENERATOR",
        help="also draw images, with the checkpoint's own generator or a diffusers pipeline (folder or Hub id), scored "
        "by the checkpoint's rewards if it has any",
    )
    add_address(parser, 8000)
    add_host_name(parser)
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="SITE",
        help="let pages of this site send requests (CORS), such as https://studio.example, or * for every site; may be "
        "repeated",
    )
    parser.add_argument(
        "--root-path", default="", metavar="PATH", help="path under which a proxy serves this server, such as /prip"
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="file with the API key to require (default: PRIP_API_KEY, or no key)",
    )
    for flag, (name, metavar, meaning) in SETTINGS.items():
        default = getattr(ServerSettings, name)
        help_text = f"{meaning} (default {str(default).removesuffix('.0')})"
        parser.add_argument(flag, dest=name, type=type(default), default=default, metavar=metavar, help=help_text)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of torch (default: all cores except one, at least one)"
    )
    parser.add_argument("--verbose", action="store_true", help="log each request")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve until a signal. Invalid arguments raise before torch is loaded."""
    from prip.loading.folders import refiner_folder, whole_folder
    from prip.options import check_whole

    for module in ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client"):
        require(module, "serve")

    from ..network.listening import LOOPBACK, address, listen
    from ..server.access import read_key

    limits = {name: getattr(arguments, name) for name, _, _ in SETTINGS.values()}
    settings = ServerSettings(
        **limits,
        host_names=arguments.host_name,
        allow_origins=arguments.allow_origin,
        root_path=arguments.root_path,
    )
    threads = max(1, (os.cpu_count() or 1) - 1) if arguments.threads is None else arguments.threads
    check_whole("threads", threads, 1)
    key = read_key(arguments.api_key_file, os.environ)
    if arguments.images is not None:
        require("diffusers", "generate")
        require("PIL.Image", "generate")
    if arguments.quantization is not None:
        require("torchao", "quantize")
    folder = refiner_folder(arguments.model, arguments.revision)
    listening = listen(arguments.host, arguments.port)
    print(f"loading {arguments.model} ...", file=sys.stderr, flush=True)

    import torch

    from prip.refiner import Refiner

    from ..checkpoint_parts import existing
    from ..comparison.workbench import Workbench
    from ..server.application import make_application
    from ..server.engine import Engine
    from ..server.metrics import Metrics
    from ..server.serving import serve

    torch.set_num_threads(threads)
    refiner = Refiner.from_pretrained(
        folder, device=arguments.device, dtype=arguments.dtype, quantization=arguments.quantization
    )
    bench = None
    if arguments.images is not None:
        whole = whole_folder(arguments.model, arguments.revision)
        generator = arguments.images or str(existing(whole / "generator"))
        bench = Workbench.around(refiner, whole, generator, arguments.device)
    metrics = Metrics()
    engine = Engine(refiner, arguments.model, settings, metrics, bench)
    application = make_application(engine, settings, metrics, arguments.host, key=key)
    if arguments.host.lower() not in LOOPBACK and key is None:
        print("anyone who can reach this machine can use the server: it has no API key", file=sys.stderr)
    print(f"{address(arguments.host, listening)} (its page lists the routes; press Ctrl-C to stop)", flush=True)
    try:
        serve(application, listening, settings, arguments.verbose)
    finally:
        engine.close()
