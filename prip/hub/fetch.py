"""Fetch a Hub repository into the local cache, with verified files, resumed downloads and complete snapshots.

huggingface_hub checks only the length of a download and discards an interrupted one. Here each file is fetched into the
cache's blobs/ with HTTP range requests, and kept only if its hash matches the Hub's. Then huggingface_hub lays out the
snapshot from these blobs, and the revision is pointed at it last.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CheckpointError, warn
from .names import RepositoryType, page_of
from .problems import explain, is_offline, is_passing
from .storage import COMMIT, MAIN, cached_commit, storage_of

Choose = Callable[[Sequence[str]], list[str]]
"""Picks the files to fetch from the names of all files of a repository."""

_KINDS = {"model": "checkpoint", "dataset": "dataset"}
_DIGESTS = {40: "sha1", 64: "sha256"}
_BAR_FROM_BYTES = 10_000_000
_FILES_AT_ONCE = 4
_RANGE_REFUSED = 416


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, as described by the Hub."""

    path: str
    size: int
    digest: str
    """In hex: SHA-256 of a large (LFS) file, git's SHA-1 of any other; also the name of the blob in the cache."""


def fetch(repository: str, revision: str | None, choose: Choose, repo_type: RepositoryType = "model") -> Path:
    """Return the folder of a snapshot with the chosen files, fetching those that the cache lacks.

    A commit in the cache needs no network. If the Hub cannot be reached, the copy that was fetched last is used, with
    a PripWarning unless HF_HUB_OFFLINE is set. Raises CheckpointError, with the remedy, if a file cannot be fetched.
    """
    wanted = f"{_KINDS[repo_type]} {repository!r}" + (f" at revision {revision!r}" if revision else "")
    storage = storage_of(repository, repo_type)
    if revision and _known_names(storage, revision) and (folder := _cached(repository, revision, choose, repo_type)):
        return folder
    try:
        commit, files = _listing(repository, revision, repo_type)
        chosen = set(choose([file.path for file in files]))
        if not chosen:
            raise CheckpointError("the repository has none of the expected files")
        wanted_files = [file for file in files if file.path in chosen]
        return _download(repository, revision or MAIN, commit, wanted_files, files, repo_type)
    except CheckpointError as error:
        raise CheckpointError(f"{wanted}: {error}") from error
    except Exception as error:  # huggingface_hub, its HTTP client and the disk each have errors of their own
        reason = explain(error, page_of(repository, repo_type))
        folder = _cached(repository, revision, choose, repo_type) if is_passing(error) else None
        if folder is None:
            hint = "; the cache holds no complete copy either" if is_passing(error) else ""
            raise CheckpointError(f"{wanted}: {reason}{hint}") from error
        if not is_offline(error):
            warn(f"{wanted}: {reason}; using the copy of commit {folder.name[:12]}")
        return folder


def _listing(repository: str, revision: str | None, repo_type: RepositoryType) -> tuple[str, list[HubFile]]:
    """Ask the Hub for the commit of a revision and its files."""
    from huggingface_hub import HfApi, constants

    request: dict[str, Any] = {"revision": revision, "repo_type": repo_type, "files_metadata": True}
    info: Any = HfApi().repo_info(repository, timeout=constants.HF_HUB_ETAG_TIMEOUT, **request)
    files = []
    for sibling in info.siblings or []:
        name, digest = sibling.rfilename, sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest or "") or not isinstance(sibling.size, int):
            raise CheckpointError(f"the Hub gives no size or hash of {name!r}")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CheckpointError(f"the Hub lists a file outside the repository, {name!r}")
        files.append(HubFile(name, sibling.size, str(digest)))
    if not COMMIT.fullmatch(info.sha or ""):
        raise CheckpointError(f"expected a commit from the Hub, got {info.sha!r}")
    return str(info.sha), files


def _known_names(storage: Path, commit: str) -> list[str]:
    """Return the names of all files of a commit, empty if PRIP did not fetch it."""
    try:
        return json.loads((storage / "prip" / f"{commit}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def _cached(repository: str, revision: str | None, choose: Choose, repo_type: RepositoryType) -> Path | None:
    """Return the snapshot of a revision if it has all chosen files, else None."""
    storage, commit = storage_of(repository, repo_type), cached_commit(repository, revision, repo_type)
    folder = storage / "snapshots" / (commit or "")
    if commit is None or not folder.is_dir():
        return None
    present = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    chosen = choose(_known_names(storage, commit) or present)  # a copy fetched by another program has no listing
    return folder if chosen and set(chosen) <= set(present) else None


def _download(
    repository: str,
    revision: str,
    commit: str,
    chosen: Sequence[HubFile],
    files: Sequence[HubFile],
    repo_type: RepositoryType,
) -> Path:
    """Fetch the chosen files, point the revision at the snapshot and return its folder."""
    from huggingface_hub import hf_hub_url, snapshot_download
    from huggingface_hub.utils import build_hf_headers

    storage = storage_of(repository, repo_type)
    folder = storage / "snapshots" / commit
    missing = [file for file in chosen if not (folder / file.path).is_file()]
    if missing:
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}

        def fetch_one(file: HubFile) -> None:
            url = hf_hub_url(repository, file.path, revision=commit, repo_type=repo_type)
            _fetch_blob(file, url, storage, headers)

        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            list(pool.map(fetch_one, missing))
        names = [glob.escape(file.path) for file in missing]
        wanted: dict[str, Any] = {"revision": commit, "repo_type": repo_type, "allow_patterns": names}
        snapshot_download(repository, tqdm_class=_no_bar(), **wanted)
    _write(storage / "prip" / f"{commit}.json", json.dumps([file.path for file in files], indent=1))
    if revision != commit:
        _write(storage / "refs" / revision, commit)
    return folder


def _fetch_blob(file: HubFile, url: str, storage: Path, headers: dict[str, str]) -> None:
    """Fetch a file into blobs/ under its hash, continuing an interrupted download.

    Raises CheckpointError if the hash is wrong, OSError or an HTTP error if the download is interrupted.
    """
    from huggingface_hub.utils import WeakFileLock

    target = storage / "blobs" / file.digest
    partial = target.with_name(f"{file.digest}.prip.incomplete")
    lock = storage.parent / ".locks" / storage.name / f"{file.digest}.lock"
    for parent in (target.parent, lock.parent):
        parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        while not target.is_file():
            received = partial.stat().st_size if partial.is_file() else 0
            if received <= file.size:
                _continue(partial, received, file, url, headers)
                if _digest(partial, file) == file.digest:
                    os.replace(partial, target)
                    return
            partial.unlink()
            if not received:
                mismatch = f"its {_DIGESTS[len(file.digest)]} is not {file.digest[:12]}..."
                raise CheckpointError(
                    f"{file.path} does not match the Hub's description: {mismatch}; it was discarded, try again"
                )


def _continue(partial: Path, received: int, file: HubFile, url: str, headers: dict[str, str]) -> None:
    """Append the rest of a file to its first `received` bytes. Raises CheckpointError if the Hub sends too little."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    bar = None if file.size >= _BAR_FROM_BYTES else _no_bar()
    with partial.open("ab") as stream:
        try:
            http_get(url, stream, resume_size=received, headers=headers, expected_size=file.size, tqdm_class=bar)
        except HfHubHTTPError as error:
            if not received or error.response.status_code != _RANGE_REFUSED:
                raise  # otherwise the file is complete, and its hash is checked next
        except OSError as error:
            if type(error) is not OSError or error.errno is not None:
                raise
            sizes = f"{partial.stat().st_size:,} of {file.size:,} bytes"
            raise CheckpointError(f"{file.path} was interrupted after {sizes}; try again to resume") from error


def _digest(path: Path, file: HubFile) -> str:
    """Return the hash of a file, of the kind that the Hub gave for it."""
    algorithm = hashlib.new(_DIGESTS[len(file.digest)])
    if algorithm.name == "sha1":
        algorithm.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: algorithm).hexdigest()


def _write(path: Path, text: str) -> None:
    """Replace a file by `text`, unless it has this content already: a complete cache may be read-only."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _no_bar() -> Any:
    from huggingface_hub.utils import tqdm

    class NoBar(tqdm):
        """A hidden progress bar."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})

    return NoBar
