"""Write files and folders atomically, and hash them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import InputError


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file atomically: `write` writes a temporary file beside it, which is synced to disk and renamed.

    The name of the temporary file begins with a dot, so that readers of all files of a folder skip it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, path.with_name(f".{path.name}.tmp"), write)


def replace_text(path: Path, text: str) -> None:
    """Replace a file atomically by `text` in UTF-8."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Replace a folder by the one that `write` fills, synced to disk.

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


def check_target(path: Path) -> None:
    """Create the folder of a file to be written later. Raises InputError if the file cannot be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    if path.is_dir():
        raise InputError(f"{path}: expected a file, got a folder")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written: no permission in {path.parent}")


def write_output(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Replace a file that the user asked for, by its content or by what a function writes to a temporary path.

    Raises InputError if it cannot be written; an earlier file is then left as it was.
    """
    write = content if callable(content) else lambda temporary: temporary.write_bytes(content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _replace(path, temporary, write)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def hash_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder; any other `path` unchanged.

    A path that does not exist is taken for a name on the Hub.
    """
    root = Path(path)
    if root.is_file():
        return _digest(root).hex()
    if not root.is_dir():
        return str(path)
    lines = [f"{file.relative_to(root).as_posix()} {_digest(file).hex()}\n" for file in _files(root)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_of_named(text: str) -> str:
    """Return `text`, which is "NAME=PATH" or a path, with the path replaced by its hash if it exists.

    Names on the Hub stay, with their revision.
    """
    name, equals, path = text.partition("=")
    if Path(text).exists() or not equals:
        return hash_of(text)
    return f"{name}={hash_of(path)}"


def hash_of_texts(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts in their order."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    return _digest(path).hex()[:16]


def folder_hash(folder: Path) -> str:
    """Return 16 hexadecimal digits of a SHA-256 of the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in _files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        digest.update(_digest(path))
    return digest.hexdigest()[:16]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _replace(path: Path, temporary: Path, write: Callable[[Path], object]) -> None:
    write(temporary)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror or error}")
