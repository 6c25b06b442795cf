"""A folder to the Hub, as one commit: what PRIP would fetch again, and nothing else."""

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
    """Upload a checkpoint's folder to "owner/name", made where it does not exist, and return the commit's hash.

    All is one commit, in which the weights and JSON files of an earlier checkpoint go. `private` True makes a private
    repository and refuses a public one; None is the owner's default. `revision` is a branch, made from the main one
    where it does not exist. Pickles are never published.
    Raises CheckpointError, which says what to do, when the Hub does not take it.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder} is not a folder, so there is nothing to publish as {repository!r}")
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise CheckpointError(f"{repository!r} exists and is public, private was asked for: nothing was uploaded")
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
        told = explain(error, repository)
        hint = "; does your token allow writing?" if may_be_the_token(error) else ""
        raise CheckpointError(f"{repository!r} was not published: {told}{hint}") from error
    return str(commit.oid)
