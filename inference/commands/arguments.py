"""Arguments shared by several commands."""

from __future__ import annotations

import os
import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from importlib.metadata import entry_points
from typing import Any

from prip.options import option_fields

DEVICES = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "maia", "ipu", "hip", "ve", "vulkan", "privateuseone")
"""Device types known to torch."""


def add_checkpoint(parser: ArgumentParser, flag: str = "--checkpoint") -> None:
    """Add the checkpoint, its revision and the device. `flag` is --model for commands that load only a refiner."""
    parser.add_argument(
        flag, default="prip-mini", help="embedded checkpoint, folder, or owner/name on the Hub (default prip-mini)"
    )
    add_revision(parser)
    add_device(parser)


def add_refiner(parser: ArgumentParser) -> None:
    """Add the refiner, its revision, the device and the precision."""
    add_checkpoint(parser, "--model")
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16", "auto"],
        help="precision of the refiner (default: float32 on a CPU, the checkpoint's own on a GPU); below float32, a "
        "few texts depend on the batch they are in",
    )
    parser.add_argument(
        "--quantization",
        choices=["int8"],
        help="keep the weights of linear layers in 8 bits (needs the extra quantize)",
    )


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


def add_switch(parser: ArgumentParser, name: str, *, default: bool, help_text: str) -> None:
    """Add --NAME, with true or false as an optional value, and --no-NAME, as `prip-train` has them."""
    parser.add_argument(
        f"--{name}", type=boolean, nargs="?", const=True, default=default, metavar="true|false", help=help_text
    )
    parser.add_argument(f"--no-{name}", action="store_false", dest=name, help=SUPPRESS)


def add_revision(parser: ArgumentParser) -> None:
    """Add --revision."""
    parser.add_argument("--revision", help="branch, tag or commit, for a checkpoint on the Hub")


def add_device(parser: ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", type=device, help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def add_address(parser: ArgumentParser, port: int) -> None:
    """Add the address that a server listens on. `port` is the default."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1, reachable only from this machine)"
    )
    parser.add_argument(
        "--port", type=int, default=port, help=f"port to listen on; 0 for any free one (default {port})"
    )


def add_host_name(parser: ArgumentParser) -> None:
    """Add --host-name."""
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="also answer requests for this host name; may be repeated",
    )


def boolean(typed: str) -> bool:
    """Read true or false (or yes or no) as YAML has them. Raises ArgumentTypeError for anything else."""
    values = {"true": True, "yes": True, "false": False, "no": False}
    if typed.lower() not in values:
        raise ArgumentTypeError(f"expected true or false, got {typed!r}")
    return values[typed.lower()]


def text(typed: str) -> str:
    """Decode a command-line argument as UTF-8 under any locale. Raises ArgumentTypeError if it is not UTF-8."""
    if typed.isascii() or not any("\udc80" <= character <= "\udcff" for character in typed):
        return typed
    try:
        return os.fsencode(typed).decode("utf-8")
    except UnicodeError as error:
        raise ArgumentTypeError(
            f"expected UTF-8, got {typed!a}; set terminal and locale to UTF-8, as in LANG=C.UTF-8"
        ) from error


def device(name: str) -> str:
    """Return the name of a device if torch has its type, without loading torch. Raises ArgumentTypeError otherwise."""
    kind = re.fullmatch(r"([a-z]+)(?::\d+)?", name)
    if (kind is not None and kind[1] in DEVICES) or entry_points(group="torch.backends"):
        return name
    meant = "; did you mean cuda?" if name.lower().startswith(("gpu", "nvidia")) else ""
    raise ArgumentTypeError(f"expected cpu, cuda, cuda:1, mps or another torch device, got {name!r}{meant}")
