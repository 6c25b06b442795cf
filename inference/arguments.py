"""Arguments that several commands take, each in the same words."""

from __future__ import annotations

from argparse import ArgumentParser


def add_checkpoint(parser: ArgumentParser, flag: str = "--checkpoint") -> None:
    """Add which checkpoint is loaded, and where it computes. flag: --model where it is no more than a refiner."""
    parser.add_argument(
        flag, default="prip-mini", help="embedded checkpoint, folder, or owner/name on the Hub (default prip-mini)"
    )
    add_revision(parser)
    add_device(parser)


def add_refiner(parser: ArgumentParser) -> None:
    """Add which refiner is loaded, where it computes, and in which precision."""
    add_checkpoint(parser, "--model")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16", "auto"], help="precision of the refiner")


def add_revision(parser: ArgumentParser) -> None:
    """Add --revision."""
    parser.add_argument("--revision", help="branch, tag or commit of a checkpoint on the Hub")


def add_device(parser: ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU when there is one)")


def add_address(parser: ArgumentParser, port: int) -> None:
    """Add where a server listens. port: the default."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=port, help=f"port to listen on, 0 for any (default {port})")
