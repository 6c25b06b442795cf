"""`prip install`: copy PRIP's node into ComfyUI, or its extension into A1111's or Forge's webui."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from prip.errors import InputError

EXAMPLES = """examples:
  prip install comfyui ~/ComfyUI
  prip install webui ~/stable-diffusion-webui
"""

HOSTS = {"comfyui": "custom_nodes", "webui": "extensions"}
"""Where a host looks for what others add to it."""

NAMES = {"comfyui": "ComfyUI", "webui": "webui"}
"""What their users call them."""

PYTHON_FILE = "python.txt"
"""In the webui's extension: the Python that has PRIP, which webui's own need not have."""


def add_parser(subparsers: Any) -> None:
    """Register `install` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "install",
        help="put PRIP into ComfyUI or webui",
        description="Copy PRIP's node into ComfyUI, or its extension into A1111's or Forge's webui. Run it again after "
        "an update of PRIP.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("host", choices=sorted(HOSTS), metavar="PROGRAM", help="comfyui or webui")
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="where that program lies: what holds custom_nodes or extensions"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Copy the host's folder. Returns 0. Raises InputError where the host is not, or a folder of another's is there."""
    target = install(arguments.host, arguments.folder.expanduser())
    print(f"written to {target}; restart {NAMES[arguments.host]} to load it")
    if arguments.host == "comfyui":
        print(f"ComfyUI's own Python must have PRIP: install it there as here, if {sys.executable} is another one")
    else:
        print(f"it refines with {sys.executable}, as {target / PYTHON_FILE} says; PRIP_PYTHON names another one")
    return 0


def install(host: str, folder: Path) -> Path:
    """Copy the folder of a host ("comfyui" or "webui") into the host's; returns where it lies now.

    Raises InputError where there is no such host, a folder of that name is not PRIP's, or it cannot be written.
    """
    home = folder / HOSTS[host]
    if not home.is_dir():
        wanted = f"give the folder of {NAMES[host]} that holds it"
        if folder.resolve().name == HOSTS[host]:
            raise InputError(f"{folder} is the folder {HOSTS[host]} itself: {wanted}, {folder.resolve().parent}")
        raise InputError(f"{folder} has no folder {HOSTS[host]}: {wanted}")
    source, target = Path(__file__).resolve().parent.parent / host, home / "prip"
    marker = "node.py" if host == "comfyui" else "scripts/prip_webui.py"
    if target.resolve() == source:
        raise InputError(f"{target} is a link to {source} already, there is nothing to copy")
    if target.exists() and not (target / marker).is_file():
        raise InputError(f"{target} is there, and is not PRIP's; move it away first")
    try:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        if host == "webui":
            (target / PYTHON_FILE).write_text(sys.executable + "\n", encoding="utf-8")
    except (OSError, shutil.Error) as error:
        raise InputError(f"{target} cannot be written: {error}") from error
    return target
