"""How something on the Hub is named: owner/name, owner/name@revision, or hf://datasets/owner/name@revision/path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import InputError

RepositoryType = Literal["model", "dataset"]
"""What a repository holds: huggingface_hub's repo_type."""

HUB_FILES = ("*.json", "*.safetensors", "*README.md")
"""The files of a checkpoint that are fetched from the Hub and published there: no pickles."""

DATASET_FILE = "hf://datasets/"
"""With this begins the name of a file of a dataset."""

_OWN = r"[A-Za-z0-9][\w.-]*"
_REVISION = r"[\w./-]+"
_REPOSITORY = re.compile(rf"(?P<repository>{_OWN}/{_OWN})(?:@(?P<revision>{_REVISION}))?")
_FILE = re.compile(rf"{DATASET_FILE}(?P<repository>{_OWN}/{_OWN})(?:@(?P<revision>[\w.-]+))?/(?P<path>[^@]+)")


class DatasetFile(NamedTuple):
    """A file of a dataset, at a revision or (None) on the main branch."""

    repository: str
    revision: str | None
    path: str


def hub_files(names: Sequence[str]) -> list[str]:
    """Return those names of a repository's files that match HUB_FILES."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in HUB_FILES)]


def is_on_hub(place: str | Path) -> bool:
    """Whether `place` is nothing here and reads like owner/name or owner/name@revision."""
    return _REPOSITORY.fullmatch(str(place)) is not None and not Path(place).expanduser().exists()


def split_revision(place: str | Path) -> tuple[str, str | None]:
    """Return (owner/name, revision or None) of what is on the Hub; of anything else itself, whatever it holds."""
    found = _REPOSITORY.fullmatch(str(place)) if is_on_hub(place) else None
    return (found["repository"], found["revision"]) if found else (str(place), None)


def page_of(repository: str, repo_type: RepositoryType) -> str:
    """Return where a repository's page lies below the Hub's address."""
    return f"datasets/{repository}" if repo_type == "dataset" else repository


def is_dataset_file(place: str | Path) -> bool:
    """Whether `place` begins as the name of a file of a dataset does."""
    return str(place).startswith(DATASET_FILE)


def parse_dataset_file(text: str) -> DatasetFile:
    """Read hf://datasets/OWNER/NAME@REVISION/PATH, in which @REVISION may be absent. Raises InputError for other text.

    A revision with a slash in it cannot be told from the path: name its commit.
    """
    found = _FILE.fullmatch(text)
    if found is None:
        raise InputError(f"wanted {DATASET_FILE}OWNER/NAME/PATH or OWNER/NAME@REVISION/PATH there, got {text!r}")
    return DatasetFile(found["repository"], found["revision"], found["path"])
