"""The parts of a DiffusionDB: in a local folder, or in a dataset on the Hub.

`datasets` runs no loading scripts since 4.0, and without one it cannot match prompts and images in the zips. So
huggingface_hub fetches one zip at a time, with resuming and checksums; each is read as it is and dropped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from prip.errors import CheckpointError, InputError
from prip.hub.commits import pinned
from prip.hub.names import is_on_hub, split_revision

from .diffusiondb import local_metadata
from .parts import PART_NAME, Part, PartFiles, by_number, local_parts, open_zip, part_number

FOLDERS = {"2m": ("images",), "large": ("diffusiondb-large-part-1", "diffusiondb-large-part-2")}
METADATA = {"2m": "metadata.parquet", "large": "metadata-large.parquet"}


@dataclass(frozen=True)
class Source:
    """Parts of a DiffusionDB, and the metadata tables that describe them."""

    parts: Sequence[Part]
    metadata: Sequence[Path]


def find_source(
    place: str | Path,
    subset: Literal["2m", "large"] = "2m",
    first_part: int = 1,
    part_limit: int = 0,
    keep: bool = False,
) -> Source:
    """Return the parts at `place`, a local folder or owner/name[@revision] on the Hub, and their metadata.

    The options are those of SourceSettings. Raise InputError if there is no such part, and CheckpointError if the Hub
    cannot be read.
    """
    if is_on_hub(place):
        commit = pinned(str(place), "dataset")
        parts, metadata = hub_parts(commit, subset, keep), [fetch_metadata(commit, subset)]
    else:
        parts, metadata = local_parts(Path(place)), local_metadata(Path(place))
    chosen = [part for part in parts if part_number(part.name) >= first_part][: part_limit or None]
    if not chosen:
        expected = f"a folder with parts such as part-000001 or part-000001.zip, from number {first_part} on"
        raise InputError(f"diffusiondb: expected {expected}, got {place}")
    return Source(chosen, metadata)


@dataclass(frozen=True)
class HubPart:
    """A part as a zip in a dataset on the Hub, downloaded every time it is opened."""

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
    """Return the parts of a subset at `place` ("owner/name@commit"), by number. Raise CheckpointError if that fails."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    repository, commit = split_revision(place)
    assert commit is not None
    paths = []
    with _hub_errors(place):
        for folder in FOLDERS[subset]:
            tree = HfApi().list_repo_tree(repository, folder, revision=commit, repo_type="dataset")
            paths += [entry.path for entry in tree if isinstance(entry, RepoFile)]
    zips = [path for path in paths if path.endswith(".zip") and PART_NAME.fullmatch(PurePosixPath(path).stem)]
    return by_number([HubPart(repository, commit, path, keep) for path in zips], place)


def fetch_metadata(place: str, subset: Literal["2m", "large"]) -> Path:
    """Return the path of a subset's metadata in the Hub's cache; errors as in `hub_parts`."""
    repository, commit = split_revision(place)
    return fetch(repository, commit, METADATA[subset], None)


def fetch(repository: str, revision: str | None, path: str, folder: str | None) -> Path:
    """Download a file of a dataset into `folder`, or the Hub's cache for None; errors as in `hub_parts`."""
    from huggingface_hub import hf_hub_download

    options: dict[str, Any] = {} if folder is None else {"local_dir": folder}
    with _hub_errors(f"{repository}@{revision}, {path}"):
        return Path(hf_hub_download(repository, path, repo_type="dataset", revision=revision, **options))


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the HTTP client's errors vary between releases
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"diffusiondb: expected a local folder or a dataset on the Hub, got {what} "
            f"({type(error).__name__}: {reason[0][:160] if reason else 'no reason given'})"
        ) from error
