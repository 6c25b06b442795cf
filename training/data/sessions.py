"""Sessions in a log of prompts: what a user typed first, and what it had become in the end."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from prip.errors import CheckpointError

from .evaluation_sets import normalise
from .filters import passing

NOBODY = ("", "deleted_account")
"""What DiffusionDB has in user_name where the user is not known."""
_COLUMNS = ["prompt", "user_name", "timestamp"]


def read_log(path: Path, max_prompt_nsfw: float = 1.0) -> tuple[pd.DataFrame, dict[str, int]]:
    """Returns prompt (with single spaces), user_name and timestamp of a table of metadata in DiffusionDB's layout, in
    its order, and counts: rows, and those left out: empty_prompts, nobody (the user is not known), no_time,
    prompt_nsfw.

    max_prompt_nsfw: prompts whose prompt_nsfw is larger are left out, where the table tells it.
    Raises CheckpointError for a table that is missing, cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise CheckpointError(f"sessions.log: expected DiffusionDB's metadata, but {path} is missing")
    try:
        known = pq.read_schema(path).names
        columns = _COLUMNS + [name for name in ("prompt_nsfw",) if name in known]
        frame = pd.read_parquet(path, columns=columns) if set(_COLUMNS) <= set(known) else pd.DataFrame()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected DiffusionDB's metadata, but it cannot be read: {error}") from error
    missing = [name for name in _COLUMNS if name not in known]
    if missing:
        raise CheckpointError(f"{path}: columns are missing: {', '.join(missing)}")
    frame = frame.assign(prompt=[" ".join(prompt.split()) for prompt in frame["prompt"].fillna("")])
    tests = {
        "empty_prompts": frame["prompt"].map(normalise) == "",
        "nobody": frame["user_name"].fillna("").isin(NOBODY),
        "no_time": frame["timestamp"].isna(),
    }
    if "prompt_nsfw" in known:
        tests["prompt_nsfw"] = frame["prompt_nsfw"] > max_prompt_nsfw
    passed, counts = passing(tests)
    return frame.loc[passed, _COLUMNS].reset_index(drop=True), {"rows": len(frame), **counts}


def find_sessions(log: pd.DataFrame, gap_minutes: float, shared: float) -> pd.DataFrame:
    """Returns first, last, prompts of each session: the prompts of one user in the order of their times, cut where more
    than gap_minutes pass or where two prompts in a row share too few words.

    log: prompt, user_name, timestamp; rows of one time keep their order. shared: the least that `shared_words` of two
    prompts may be. prompts: how many there are, repeats in a row counted once.
    """
    ordered = log.sort_values(["user_name", "timestamp"], kind="stable")
    ends: list[tuple[str, str]] = []
    counts: list[int] = []
    gap, words = pd.Timedelta(minutes=gap_minutes), frozenset[str]()
    before, user, time = "", None, None
    for prompt, own_user, own_time in zip(ordered["prompt"], ordered["user_name"], ordered["timestamp"], strict=True):
        own_words = words if prompt == before else frozenset(normalise(prompt).split())
        if own_user != user or own_time - time > gap or shared_words(words, own_words) < shared:
            ends.append((prompt, prompt))
            counts.append(1)
        elif prompt != before:
            ends[-1] = (ends[-1][0], prompt)
            counts[-1] += 1
        before, user, time, words = prompt, own_user, own_time, own_words
    return pd.DataFrame(ends, columns=["first", "last"]).assign(prompts=counts)


def shared_words(one: frozenset[str], other: frozenset[str]) -> float:
    """Returns the share of the smaller set's words that the other set holds too; 0 where one is empty."""
    return len(one & other) / min(len(one), len(other)) if one and other else 0.0
