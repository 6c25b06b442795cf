"""Layout of huggingface_hub's cache: blobs/, snapshots/COMMIT/, refs/REVISION."""

from __future__ import annotations

import re
from pathlib import Path

from .names import RepositoryType

MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
"""Matches the hash of a commit."""


def storage_of(repository: str, repo_type: RepositoryType) -> Path:
    """Return the folder of a repository in the cache, which need not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{repo_type}s--{repository.replace('/', '--')}"


def cached_commit(repository: str, revision: str | None, repo_type: RepositoryType) -> str | None:
    """Return the commit of a revision, or (None) of the main branch, when it was last fetched; None if never."""
    reference = storage_of(repository, repo_type) / "refs" / (revision or MAIN)
    commit = reference.read_text(encoding="utf-8") if reference.is_file() else revision or MAIN
    return commit if COMMIT.fullmatch(commit) else None
