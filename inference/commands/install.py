"""`prip install`: copy PRIP's node into ComfyUI, or its extension into the webui of A1111 or Forge."""

from __future__ import annotations

import argparse
import json
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
"""Folder in which each host looks for extensions."""

NAMES = {"comfyui": "ComfyUI", "webui": "webui"}
"""What the hosts are called."""

PYTHON_FILE = "python.txt"
"""Holds the path of the Python that runs PRIP; webui's own need not have it."""
OPTIONS_FILE = "options.json"
"""Holds defaults, bounds and meanings of the options, for webui's Python."""


def add_parser(subparsers: Any) -> None:
    """Register `install` with the subparsers of `prip`."""
    parser = subparsers.add_parser(
        "install",
        help="install PRIP in ComfyUI or webui",
        description="Copy PRIP's node into ComfyUI, or its extension into the webui of A1111 or Forge. Run it again "
        "after updating PRIP.",
        epilog=EXAMPLES,
    )
    parser.add_argument("host", choices=sorted(HOSTS), metavar="PROGRAM", help="comfyui or webui")
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder of that program, with custom_nodes or extensions in it"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Install and print what to do next."""
    target = install(arguments.host, arguments.folder.expanduser())
    print(f"installed in {target}; restart {NAMES[arguments.host]} to load it")
    if arguments.host == "comfyui":
        print(f"PRIP must be installed in ComfyUI's Python too, unless that is {sys.executable}")
    else:
        print(f"PRIP runs in {sys.executable}; to change that, edit {target / PYTHON_FILE} or set PRIP_PYTHON")


def install(host: str, folder: Path) -> Path:
    """Copy PRIP's folder for a host ("comfyui" or "webui") into the host's folder and return the copy's path.

    Raises:
        InputError: The folder is not the host's, has another program's folder named prip, or cannot be written.
    """
    home = folder / HOSTS[host]
    if not home.is_dir():
        expected = f"folder: expected that of {NAMES[host]}, with {HOSTS[host]} in it"
        if folder.resolve().name == HOSTS[host]:
            expected = f"folder: expected {folder.resolve().parent}"
        raise InputError(f"{expected}, got {str(folder)!r}")
    source, target = Path(__file__).resolve().parent.parent / host, home / "prip"
    marker = "node.py" if host == "comfyui" else "scripts/prip_webui.py"
    if target.resolve() == source:
        raise InputError(f"{target} already links to {source}: nothing to copy")
    if target.exists() and not (target / marker).is_file():
        raise InputError(f"{target} exists and does not belong to PRIP; move it away first")
    try:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        if host == "webui":
            (target / PYTHON_FILE).write_text(sys.executable + "\n", encoding="utf-8")
            (target / OPTIONS_FILE).write_text(options_as_json(), encoding="utf-8")
    except (OSError, shutil.Error) as error:
        raise InputError(f"cannot write {target}: {error}") from error
    return target


def options_as_json() -> str:
    """Return name, default, bounds and meaning of each option of `refine`, for hosts that cannot import PRIP."""
    from prip.options import option_fields

    options = {
        option.name: {
            "default": option.default,
            "minimum": option.bounds.minimum,
            "maximum": option.bounds.maximum,
            "help": option.doc,
        }
        for option in option_fields()
    }
    return json.dumps(options, indent=2) + "\n"
