"""Files and folders that appear whole or not at all, whenever the process dies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make a temporary file beside `path`, brings it to the disk and puts it in the place of `path`.

    The temporary file is hidden: whoever reads all files of the folder, as a dataset, does not see it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Writes `text` in UTF-8 as the whole of `path`."""
    replace_file(path, lambda temporary: _write_text(temporary, text))


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill an empty temporary folder beside `path`, and puts it in the place of `path`.

    A folder already at `path` is moved aside first: for a moment there is none, but never half of one.
    """
    temporary, aside = path.with_name(f"{path.name}.tmp"), path.with_name(f"{path.name}.old")
    for leftover in (temporary, aside):
        if leftover.exists():
            shutil.rmtree(leftover)
    temporary.mkdir(parents=True)
    write(temporary)
    for file in sorted(temporary.rglob("*")):
        _sync(file)
    if path.exists():
        os.replace(path, aside)
    os.replace(temporary, path)
    _sync(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
