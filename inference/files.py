"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from prip.errors import InputError


def check_target(path: Path) -> None:
    """Make the folder of a file that is to be written later. Raises InputError when that cannot work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    if path.is_dir():
        raise InputError(f"{path} is a folder; a file was expected")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written: no permission in {path.parent}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write the whole of a file, or leave what was there. Raises InputError when it cannot be written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
