"""Names on the Hub: owner/name, owner/name@revision, and hf://datasets/owner/name@revision/path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import InputError

RepositoryType = Literal["model", "dataset"]
"""Type of a repository: huggingface_hub's repo_type."""

HUB_FILES = ("*.json", "*.safetensors", "*README.md")
"""Patterns of the files that are fetched from and published on the Hub; no pickles."""

DATASET_FILE = "hf://datasets/"
"""Prefix of the name of a file in a dataset."""

_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
_REVISION = r"[\w./-]{1,255}"
_REPOSITORY = re.compile(rf"(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>{_REVISION}))?")
_FILE = re.compile(rf"{DATASET_FILE}(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[\w.-]{{1,255}}))?/(?P<path>[^@]+)")


class DatasetFile(NamedTuple):
    """A file in a dataset, at a revision or (None) on the main branch."""

    repository: str
    revision: str | None
    path: str


def hub_files(names: Sequence[str]) -> list[str]:
    """Return the file names that match HUB_FILES."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in HUB_FILES)]


def is_on_hub(source: str | Path) -> bool:
    """Return whether `source` has the form owner/name or owner/name@revision and is not a local path."""
    return _match(source) is not None and not Path(source).expanduser().exists()


def split_revision(source: str | Path) -> tuple[str, str | None]:
    """Return (owner/name, revision or None) for a name on the Hub, and (`source`, None) for anything else."""
    match = _match(source) if is_on_hub(source) else None
    return (match["repository"], match["revision"]) if match else (str(source), None)


def _match(source: str | Path) -> re.Match[str] | None:
    """Match owner/name or owner/name@revision; a revision is a file name in the cache, so it must stay inside."""
    match = _REPOSITORY.fullmatch(str(source))
    return match if match and _stays_inside(match["revision"]) else None


def _stays_inside(path: str | None) -> bool:
    return path is None or not {"", ".", ".."} & set(path.split("/"))


def page_of(repository: str, repo_type: RepositoryType) -> str:
    """Return the path of a repository's page on the Hub."""
    return f"datasets/{repository}" if repo_type == "dataset" else repository


def is_dataset_file(source: str | Path) -> bool:
    """Return whether `source` begins with DATASET_FILE."""
    return str(source).startswith(DATASET_FILE)


def parse_dataset_file(text: str) -> DatasetFile:
    """Parse hf://datasets/OWNER/NAME@REVISION/PATH, where @REVISION is optional. Raises InputError for other text.

    A revision must not contain a slash; use its commit instead.
    """
    match = _FILE.fullmatch(text)
    if match is None or not (_stays_inside(match["revision"]) and _stays_inside(match["path"])):
        raise InputError(f"expected {DATASET_FILE}OWNER/NAME/PATH or OWNER/NAME@REVISION/PATH, got {text!r}")
    return DatasetFile(**match.groupdict())
