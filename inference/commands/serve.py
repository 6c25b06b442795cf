"""`prip serve`: a refiner, and a generator if wanted, behind HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from prip.errors import require

from .arguments import add_address, add_host_name, add_refiner

EXAMPLES = """examples:
  prip serve
  prip serve --images
  prip serve --port 9000 --max-batch 128 --timeout 10
  PRIP_API_KEY=$(openssl rand -hex 16) prip serve --host 0.0.0.0 --host-name refiner.example
  prip serve --model my-name/my-refiner --revision v1.0 --images stabilityai/sdxl-turbo --device cuda

  curl http://127.0.0.1:8000/v1/refine -H "Content-Type: application/json" -d '{"prompt": "a cat"}'
"""


def add_parser(subparsers: Any) -> None:
    """Register `serve` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "serve",
        help="refine and draw over HTTP",
        description="Serve a refiner over HTTP: what many clients ask for at a time is refined in one batch, and in "
        "float32 each gets what prip refine would give with the same seed. SIGTERM or Ctrl-C ends it when all that was "
        "accepted is answered, the second one at once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_refiner(parser)
    parser.add_argument(
        "--images",
        nargs="?",
        const="",
        metavar="GENERATOR",
        help="also draw: with the checkpoint's own generator, or with a diffusers pipeline (folder or Hub id); scores "
        "are those of the checkpoint's rewards, if it has any",
    )
    add_address(parser, 8000)
    add_host_name(parser)
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="file of the key to ask for (default: PRIP_API_KEY, or none)"
    )
    parser.add_argument("--max-batch", type=int, default=64, metavar="N", help="texts to make at a time (default 64)")
    parser.add_argument(
        "--max-draw-batch", type=int, default=8, metavar="N", help="images to draw at a time, or fewer (default 8)"
    )
    parser.add_argument(
        "--max-wait-ms", type=float, default=5.0, metavar="MS", help="a batch waits so long for more (default 5)"
    )
    parser.add_argument("--queue-size", type=int, default=512, metavar="N", help="prompts that may wait (default 512)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for an answer (default 30)")
    parser.add_argument(
        "--client-timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds for a client to send headers, body, and to read on (default 10)",
    )
    parser.add_argument(
        "--max-body-bytes", type=int, default=1 << 20, metavar="N", help="of a request (default 1048576)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of torch on the CPU (default: all cores but one, at least one)"
    )
    parser.add_argument("--verbose", action="store_true", help="log each request")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load and serve. Returns 0; errors of ours are for the caller, told before torch is loaded where that can be."""
    from prip.loading.folders import refiner_folder, whole_folder
    from prip.options import check_whole

    for module in ("fastapi", "fastapi_offline", "uvicorn", "prometheus_client"):
        require(module, "serve")

    from ..network.listening import LOOPBACK, address, listen
    from ..server.access import read_key
    from ..server.settings import ServerSettings

    settings = ServerSettings(
        max_batch=arguments.max_batch,
        max_draw_batch=arguments.max_draw_batch,
        max_wait_ms=arguments.max_wait_ms,
        queue_size=arguments.queue_size,
        timeout_s=arguments.timeout,
        client_timeout_s=arguments.client_timeout,
        max_body_bytes=arguments.max_body_bytes,
        host_names=arguments.host_name,
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
    application = make_application(engine, settings, metrics, arguments.host, key)
    if arguments.host.lower() not in LOOPBACK and key is None:
        print("everybody who reaches this machine can use the server: it has no key", file=sys.stderr)
    print(f"{address(arguments.host, listening)} (Ctrl-C ends it; /docs tells what it answers)", flush=True)
    try:
        serve(application, listening, settings, arguments.verbose)
    finally:
        engine.close()
    return 0
