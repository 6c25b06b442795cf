"""Resolve names on the Hub to commits, so that a run records exactly what it used."""

from __future__ import annotations

import warnings

from ..errors import CheckpointError, PripWarning
from .names import RepositoryType, is_on_hub, page_of, split_revision
from .problems import explain, is_offline, is_passing
from .storage import COMMIT, cached_commit


def pinned(source: str, repo_type: RepositoryType = "model") -> str:
    """Return owner/name@commit for a name on the Hub, and anything else unchanged. Errors are those of `commit_of`."""
    if not is_on_hub(source):
        return source
    repository, revision = split_revision(source)
    return f"{repository}@{commit_of(repository, revision, repo_type)}"


def commit_of(repository: str, revision: str | None, repo_type: RepositoryType = "model") -> str:
    """Return the commit of a branch, a tag, a commit or (None) the main branch.

    If the Hub cannot be reached, return the commit that was fetched last, with a PripWarning unless HF_HUB_OFFLINE is
    set. Raises CheckpointError, with the remedy, if there is none.
    """
    from huggingface_hub import HfApi, constants

    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    wanted = f"{repository!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        info = HfApi().repo_info(
            repository, revision=revision, repo_type=repo_type, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except Exception as error:  # huggingface_hub and its HTTP client each have errors of their own
        reason = explain(error, page_of(repository, repo_type))
        commit = cached_commit(repository, revision, repo_type) if is_passing(error) else None
        if commit is None:
            raise CheckpointError(f"{wanted} on the Hub: {reason}") from error
        if not is_offline(error):
            what = f"{wanted} on the Hub: {reason}; using commit {commit[:12]} from the cache"
            warnings.warn(what, PripWarning, stacklevel=2)
        return commit
    if not COMMIT.fullmatch(info.sha or ""):
        raise CheckpointError(f"{wanted}: expected a commit from the Hub, got {info.sha!r}")
    return str(info.sha)
