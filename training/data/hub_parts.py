"""DiffusionDB on the Hub, part by part.

The repository has a loading script, and `datasets` runs none since 4.0; without it `datasets` cannot tell
which prompt belongs to which image in the zips. So the zips are fetched one at a time by huggingface_hub, which
resumes and checks them, read as they are, and dropped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from prip.errors import CheckpointError
from prip.hub.names import split_revision

from .parts import PART_NAME, Part, PartFiles, by_number, open_zip

FOLDERS = {"2m": ("images",), "large": ("diffusiondb-large-part-1", "diffusiondb-large-part-2")}
METADATA = {"2m": "metadata.parquet", "large": "metadata-large.parquet"}


@dataclass(frozen=True)
class HubPart:
    """A zip in a dataset on the Hub, fetched whenever it is opened."""

    repository: str
    revision: str
    path: str
    keep: bool
    packed = True
    listed = False

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).stem

    @contextmanager
    def open(self) -> Iterator[PartFiles]:
        with tempfile.TemporaryDirectory(prefix="prip-") as scratch:
            fetched = fetch(self.repository, self.revision, self.path, None if self.keep else scratch)
            with open_zip(fetched) as files:
                yield files


def hub_parts(place: str, subset: Literal["2m", "large"], keep: bool) -> list[Part]:
    """Returns the parts of a subset at `place` ("owner/name@commit"), by number. Raises CheckpointError if the Hub
    does not give it."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    repository, commit = split_revision(place)
    assert commit is not None
    paths = []
    with _told(place):
        for folder in FOLDERS[subset]:
            tree = HfApi().list_repo_tree(repository, folder, revision=commit, repo_type="dataset")
            paths += [entry.path for entry in tree if isinstance(entry, RepoFile)]
    zips = [path for path in paths if path.endswith(".zip") and PART_NAME.fullmatch(PurePosixPath(path).stem)]
    return by_number([HubPart(repository, commit, path, keep) for path in zips], place)


def fetch_metadata(place: str, subset: Literal["2m", "large"]) -> Path:
    """Returns the metadata of a subset, in the Hub's cache; errors as in `hub_parts`."""
    repository, commit = split_revision(place)
    return fetch(repository, commit, METADATA[subset], None)


def fetch(repository: str, revision: str | None, path: str, folder: str | None) -> Path:
    """Fetches a file of a dataset into `folder`, or into the Hub's cache for None; errors as in `hub_parts`."""
    from huggingface_hub import hf_hub_download

    options: dict[str, Any] = {} if folder is None else {"local_dir": folder}
    with _told(f"{repository}@{revision}, {path}"):
        return Path(hf_hub_download(repository, path, repo_type="dataset", revision=revision, **options))


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the HTTP client's errors differ from release to release
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"diffusiondb: {what} is no folder here, and the Hub did not give it "
            f"({type(error).__name__}: {reason[0][:160] if reason else 'no reason given'})"
        ) from error
