"""Files that appear whole or not at all, and hashes of what was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
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


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make the whole of a file, or leave what was there. Raises InputError when it cannot be written."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write the whole of a file, or leave what was there. Raises InputError when it cannot be written."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_with(path, write)


def folder_hash(folder: Path) -> str:
    """Return a SHA-256 of the names and contents of all files in a folder, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(_digest(path))
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return a SHA-256 of a file's content, 16 hexadecimal digits."""
    return _digest(path).hex()[:16]


def _digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
