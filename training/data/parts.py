"""The parts of a DiffusionDB where they lie: folders, zips as they are distributed, and zips on the Hub.

A part is a small value that travels to whoever reads it; its zip is never unpacked to the disk.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from prip.errors import InputError, PripError

MAX_FILE_BYTES = 2**26
"""Larger files are taken for broken: they would fill the memory."""

PART_NAME = re.compile(r"part-(\d{6})")
_PATTERNS = ("images/part-*", "part-*", "diffusiondb-large-part-*/part-*")


class BadFileError(PripError):
    """A file that cannot be read, or a part that cannot be opened; the message is the reason."""


class PartFiles(Protocol):
    """An opened part."""

    @property
    def names(self) -> frozenset[str]:
        """Names of its files, without folders."""

    def read(self, name: str) -> bytes:
        """Returns the content of a file. Raises BadFileError with the reason."""


class Part(Protocol):
    """A part of the dataset."""

    @property
    def name(self) -> str:
        """part-000001, say."""

    @property
    def packed(self) -> bool:
        """Whether its images are best read together: to open it costs more than to open an image."""

    @property
    def listed(self) -> bool:
        """Whether to open it just for the names of its files is cheap."""

    def open(self) -> AbstractContextManager[PartFiles]:
        """Opens it. Raises BadFileError where it cannot be read."""


@dataclass(frozen=True)
class FolderPart:
    """A part that is a folder of files."""

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
            raise BadFileError("its file is missing") from error
        except OSError as error:
            raise BadFileError(f"it cannot be read: {type(error).__name__}") from error


@dataclass(frozen=True)
class ZipPart:
    """A part that is a zip, as DiffusionDB is distributed."""

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
    """Opens the zip of a part, whose files lie at its top or in one folder. Raises BadFileError if it is none."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
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
            raise BadFileError("its file is missing")
        check_size(self._members[name].file_size)
        try:
            return self._archive.read(self._members[name])
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise BadFileError(f"it cannot be read: {type(error).__name__}") from error


def check_size(size: int) -> None:
    """Raises BadFileError for a file of more bytes than an image of DiffusionDB can have."""
    if size > MAX_FILE_BYTES:
        raise BadFileError(f"it is too large: {size} bytes")


class PartsReader:
    """Files of several parts; each part is opened when its first file is read, and stays open until the exit."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        """parts: by their names."""
        self._parts = parts
        self._stack = ExitStack()
        self._opened: dict[str, PartFiles | BadFileError] = {}

    def __enter__(self) -> PartsReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, name: str) -> None:
        """Opens a part, unless it is open; what is wrong with it is told when a file of it is read."""
        if name not in self._opened:
            try:
                self._opened[name] = self._stack.enter_context(self._parts[name].open())
            except BadFileError as error:
                self._opened[name] = error

    def read(self, part: str, file: str) -> bytes:
        """Returns the content of `file` in `part`, which is open. Raises BadFileError with the reason."""
        opened = self._opened[part]
        if isinstance(opened, BadFileError):
            raise BadFileError(str(opened))
        return opened.read(file)


def local_parts(folder: Path) -> list[Part]:
    """Returns the parts in `folder` (a whole set, some of its parts, or one part), by number.

    Where a part is there both as a zip and as a folder beside it, the folder counts. Raises InputError where two parts
    have one name, as those of two sets have.
    """
    paths = [folder, *(path for pattern in _PATTERNS for path in folder.glob(pattern))]
    folders = {path for path in paths if path.is_dir() and PART_NAME.fullmatch(path.name)}
    zips = {path for path in paths if path.suffix == ".zip" and PART_NAME.fullmatch(path.stem) and path.is_file()}
    found: list[Part] = [FolderPart(path) for path in folders]
    found += [ZipPart(path) for path in zips if path.with_suffix("") not in folders]
    return by_number(found, str(folder))


def by_number(parts: Iterable[Part], place: str) -> list[Part]:
    """Returns the parts by number. Raises InputError where two have one name."""
    ordered = sorted(parts, key=lambda part: part.name)
    for one, other in zip(ordered, ordered[1:], strict=False):
        if one.name == other.name:
            raise InputError(f"diffusiondb: expected parts whose names differ, but {place} holds two {one.name}")
    return ordered


def part_number(part: str) -> int:
    """Returns 17 for part-000017."""
    return int(part.removeprefix("part-"))
