"""Arguments that several commands take, each in the same words."""

from __future__ import annotations

import os
import re
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from importlib.metadata import entry_points
from typing import Any

from prip.options import option_fields

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "maia", "ipu", "hip", "ve", "vulkan", "privateuseone")
"""What torch computes on, by kind."""


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
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16", "auto"],
        help="precision of the refiner; in float32, the default on the CPU, no text depends on what shares its batch, "
        "in others a few do",
    )
    parser.add_argument("--quantization", choices=["int8"], help="linear layers in 8 bits (extra quantize)")


def add_options(parser: ArgumentParser) -> None:
    """Add a flag for each option of `refine`, with the field's default and documentation."""
    for option in option_fields():
        flag = f"--{option.name.replace('_', '-')}"
        default = (
            f" (default {option.default})"
            if option.default or option.kind in (int, float) and not option.is_optional
            else ""
        )
        help_text = f"{option.doc[0].lower()}{option.doc[1:].rstrip('.')}{default}".replace("%", "%%")
        if option.is_list:
            flag = flag.removesuffix("s")
            parser.add_argument(
                flag,
                dest=option.name,
                action="append",
                type=text,
                default=[],
                metavar=flag.rpartition("-")[2].upper(),
                help=f"{help_text}; may be repeated",
            )
        elif option.kind is bool:
            switch: Any = BooleanOptionalAction if option.default else "store_true"
            parser.add_argument(flag, action=switch, default=option.default, help=help_text)
        else:
            flags = ["-n", flag] if option.name == "num_alternatives" else [flag]
            metavar = "N" if option.kind is int else "X"
            parser.add_argument(*flags, type=option.kind, default=option.default, metavar=metavar, help=help_text)


def add_revision(parser: ArgumentParser) -> None:
    """Add --revision."""
    parser.add_argument("--revision", help="branch, tag or commit of a checkpoint on the Hub")


def add_device(parser: ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", type=device, help="cpu, cuda, cuda:1, ... (default: a GPU when there is one)")


def add_address(parser: ArgumentParser, port: int) -> None:
    """Add where a server listens. port: the default."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=port, help=f"port to listen on, 0 for any (default {port})")


def add_host_name(parser: ArgumentParser) -> None:
    """Add --host-name."""
    parser.add_argument(
        "--host-name", action="append", default=[], metavar="NAME", help="also answer under this name; may be repeated"
    )


def text(typed: str) -> str:
    """Return what was typed. Where the locale is not one of UTF-8 (LANG=C), its bytes are read as UTF-8 nevertheless.

    Raises ArgumentTypeError for bytes that are not.
    """
    if typed.isascii() or not any("\udc80" <= character <= "\udcff" for character in typed):
        return typed
    try:
        return os.fsencode(typed).decode("utf-8")
    except UnicodeError as error:
        raise ArgumentTypeError(
            f"{typed!a} is not UTF-8: the terminal must send that, and its locale say so, as in LANG=C.UTF-8"
        ) from error


def device(name: str) -> str:
    """Return the name of a device. Raises ArgumentTypeError for a kind that torch does not know.

    That is told before torch is loaded; whether this machine has such a device, when it is.
    """
    kind = re.fullmatch(r"([a-z]+)(?::\d+)?", name)
    if (kind is not None and kind[1] in DEVICES) or entry_points(group="torch.backends"):
        return name
    meant = "; did you mean cuda?" if name.lower().startswith(("gpu", "nvidia")) else ""
    raise ArgumentTypeError(f"wanted cpu, cuda, cuda:1, mps or another device of torch's, got {name!r}{meant}")
