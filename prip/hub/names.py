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
"""The files of a checkpoint that are fetched from the Hub and published there: no pickles."""

DATASET_FILE = "hf://datasets/"
"""Prefix of the name of a file in a dataset."""

_OWN = r"[A-Za-z0-9][\w.-]*"
_REVISION = r"[\w./-]+"
_REPOSITORY = re.compile(rf"(?P<repository>{_OWN}/{_OWN})(?:@(?P<revision>{_REVISION}))?")
_FILE = re.compile(rf"{DATASET_FILE}(?P<repository>{_OWN}/{_OWN})(?:@(?P<revision>[\w.-]+))?/(?P<path>[^@]+)")


class DatasetFile(NamedTuple):
    """A file in a dataset, at a revision or (None) on the main branch."""

    repository: str
    revision: str | None
    path: str


def hub_files(names: Sequence[str]) -> list[str]:
    """Return those names of a repository's files that match HUB_FILES."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in HUB_FILES)]


def is_on_hub(place: str | Path) -> bool:
    """Return whether `place` has the form owner/name or owner/name@revision and is not a local path."""
    return _REPOSITORY.fullmatch(str(place)) is not None and not Path(place).expanduser().exists()


def split_revision(place: str | Path) -> tuple[str, str | None]:
    """Return (owner/name, revision or None) for a name on the Hub, and (`place`, None) for anything else."""
    found = _REPOSITORY.fullmatch(str(place)) if is_on_hub(place) else None
    return (found["repository"], found["revision"]) if found else (str(place), None)


def page_of(repository: str, repo_type: RepositoryType) -> str:
    """Return the path of a repository's page on the Hub."""
    return f"datasets/{repository}" if repo_type == "dataset" else repository


def is_dataset_file(place: str | Path) -> bool:
    """Return whether `place` begins with DATASET_FILE."""
    return str(place).startswith(DATASET_FILE)


def parse_dataset_file(text: str) -> DatasetFile:
    """Parse hf://datasets/OWNER/NAME@REVISION/PATH, where @REVISION is optional. Raises InputError for other text.

    A revision with a slash cannot be told from the path: use its commit.
    """
    found = _FILE.fullmatch(text)
    if found is None:
        raise InputError(f"expected {DATASET_FILE}OWNER/NAME/PATH or OWNER/NAME@REVISION/PATH, got {text!r}")
    return DatasetFile(found["repository"], found["revision"], found["path"])
