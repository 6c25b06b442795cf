"""What a file or a folder holds, as one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def hash_of(path: str | Path) -> str:
    """Returns the sha256 of a file, or of the names and contents of all files in a folder; else `path` as it is.

    A path that is neither is taken for the name of something on the Hub.
    """
    root = Path(path)
    if root.is_file():
        return _digest(root)
    if not root.is_dir():
        return str(path)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(root).as_posix()} {_digest(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hash_of_named(text: str) -> str:
    """Returns what says which weights "NAME=PLACE" or a place stands for: hash_of the place if it is here, else `text`.

    What is on the Hub is told by its name, and its revision where the text pins one.
    """
    name, equals, place = text.partition("=")
    if Path(text).exists() or not equals:
        return hash_of(text)
    return f"{name}={hash_of(place)}"


def hash_of_texts(texts: Iterable[str]) -> str:
    """Returns the sha256 of texts in their order."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
