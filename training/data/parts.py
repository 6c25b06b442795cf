"""Parts of a DiffusionDB: folders, or zips as published, locally or on the Hub.

A part is a small picklable value; its zip is never unpacked to disk.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Protocol

from prip.errors import InputError, PripError

MAX_FILE_BYTES = 2**26
"""Larger files count as broken, to bound memory."""

PART_NAME = re.compile(r"part-(\d{6})")
_PATTERNS = ("images/part-*", "part-*", "diffusiondb-large-part-*/part-*")


class BadFileError(PripError):
    """A file cannot be read or a part cannot be opened; the message is the reason."""


class PartFiles(Protocol):
    """The files of an opened part."""

    @property
    def names(self) -> frozenset[str]:
        """File names, without folders."""

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raise BadFileError with the reason."""


class Part(Protocol):
    """A part of the data set."""

    @property
    def name(self) -> str:
        """Name of the part, such as part-000001."""

    @property
    def packed(self) -> bool:
        """Whether opening it is expensive, so that its images should be read together."""

    @property
    def listed(self) -> bool:
        """Whether listing its files is cheap."""

    def open(self) -> AbstractContextManager[PartFiles]:
        """Open the part. Raise BadFileError if it cannot be read."""


@dataclass(frozen=True)
class FolderPart:
    """A part as a folder of files."""

    path: Path
    packed = False
    listed = True

    @property
    def name(self) -> str:
        return self.path.name

    @contextmanager
    def open(self) -> Iterator[PartFiles]:
        yield _Folder(self.path)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(path.name for path in self._path.iterdir())

    def read(self, name: str) -> bytes:
        path = self._path / name
        try:
            check_size(path.stat().st_size)
            return path.read_bytes()
        except FileNotFoundError as error:
            raise BadFileError("the file is missing") from error
        except OSError as error:
            raise BadFileError(f"cannot be read: {type(error).__name__}") from error


@dataclass(frozen=True)
class ZipPart:
    """A part as a zip, as DiffusionDB is published."""

    path: Path
    packed = True
    listed = True

    @property
    def name(self) -> str:
        return self.path.stem

    @contextmanager
    def open(self) -> Iterator[PartFiles]:
        with open_zip(self.path) as files:
            yield files


@contextmanager
def open_zip(path: Path) -> Iterator[PartFiles]:
    """Open the zip of a part, with its files at the top or in one folder. Raise BadFileError if it is no zip."""
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises errors of many kinds for damaged directories
        raise BadFileError(f"the part's zip cannot be read: {type(error).__name__}") from error
    with archive:
        yield _Zip(archive)


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {PurePosixPath(info.filename).name: info for info in archive.infolist() if not info.is_dir()}

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self._members)

    def read(self, name: str) -> bytes:
        if name not in self._members:
            raise BadFileError("the file is missing")
        check_size(self._members[name].file_size)
        try:
            return self._archive.read(self._members[name])
        except Exception as error:  # each of zip's compressions raises errors of its own for damaged data
            raise BadFileError(f"cannot be read: {type(error).__name__}") from error


def check_size(size: int) -> None:
    """Raise BadFileError for a file larger than an image of DiffusionDB can be."""
    if size > MAX_FILE_BYTES:
        raise BadFileError(f"too large: {size} bytes")


class PartsReader:
    """Reads files of several parts, given by name; each part stays open until the exit."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._stack = ExitStack()
        self._opened: dict[str, PartFiles | BadFileError] = {}

    def __enter__(self) -> PartsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, name: str) -> None:
        """Open a part unless it is open; if that fails, reading one of its files raises the error."""
        if name not in self._opened:
            try:
                self._opened[name] = self._stack.enter_context(self._parts[name].open())
            except BadFileError as error:
                self._opened[name] = error

    def read(self, part: str, file: str) -> bytes:
        """Return the content of `file` in the opened part. Raise BadFileError with the reason."""
        opened = self._opened[part]
        if isinstance(opened, BadFileError):
            raise BadFileError(str(opened))
        return opened.read(file)


def local_parts(folder: Path) -> list[Part]:
    """Return the parts in `folder` (a whole set, some of its parts, or one part), by number.

    A folder takes precedence over a zip of the same part. Raise InputError if two parts share a name, as in a mix of
    both sets.
    """
    paths = [folder, *(path for pattern in _PATTERNS for path in folder.glob(pattern))]
    folders = {path for path in paths if path.is_dir() and PART_NAME.fullmatch(path.name)}
    zips = {path for path in paths if path.suffix == ".zip" and PART_NAME.fullmatch(path.stem) and path.is_file()}
    parts: list[Part] = [FolderPart(path) for path in folders]
    parts += [ZipPart(path) for path in zips if path.with_suffix("") not in folders]
    return by_number(parts, str(folder))


def by_number(parts: Iterable[Part], place: str) -> list[Part]:
    """Return the parts by number. Raise InputError if two share a name."""
    ordered = sorted(parts, key=lambda part: part.name)
    for part, following in pairwise(ordered):
        if part.name == following.name:
            raise InputError(f"diffusiondb: expected parts with different names, got two {part.name} in {place}")
    return ordered


def part_number(part: str) -> int:
    """Return the number of a part by its name: 17 for part-000017."""
    return int(part.removeprefix("part-"))
