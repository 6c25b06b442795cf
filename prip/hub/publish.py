"""Publish a checkpoint on the Hub, as one commit of the files that PRIP fetches."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError
from .names import HUB_FILES
from .problems import explain, may_be_the_token


def publish(
    folder: str | os.PathLike[str],
    repository: str,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload a checkpoint as one commit, which replaces the weights and JSON files of an earlier checkpoint.

    Pickles are never published.

    Args:
        folder: Folder of the checkpoint.
        repository: "owner/name", created if it does not exist.
        private: True creates a private repository and refuses a public one; None is the owner's default.
        revision: Branch, created from the main branch if it does not exist.
        commit_message: Message of the commit.

    Returns:
        The hash of the commit.

    Raises:
        CheckpointError: The Hub does not accept the upload.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    if not Path(folder).is_dir():
        raise CheckpointError(f"folder: expected a folder to publish as {repository!r}, got {str(folder)!r}")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise CheckpointError(f"private: {repository!r} exists and is public; nothing was uploaded")
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            folder_path=Path(folder),
            repo_id=repository,
            revision=revision,
            commit_message=commit_message or "Upload a PRIP checkpoint",
            allow_patterns=list(HUB_FILES),
            delete_patterns=list(HUB_FILES),
        )
    except CheckpointError:
        raise
    except Exception as error:  # huggingface_hub and its HTTP client each have errors of their own
        reason = explain(error, repository)
        hint = "; does your token allow writing?" if may_be_the_token(error) else ""
        raise CheckpointError(f"{repository!r} was not published: {reason}{hint}") from error
    return str(commit.oid)
