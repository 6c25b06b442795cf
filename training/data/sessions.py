"""Sessions in a log of prompts: a user's first prompt and its final version."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from prip.errors import CheckpointError

from .evaluation_sets import normalise
from .filters import passing

NOBODY = ("", "deleted_account")
"""DiffusionDB's user_name for unknown users."""
_COLUMNS = ["prompt", "user_name", "timestamp"]


def read_log(path: Path, max_prompt_nsfw: float = 1.0) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return prompt (with single spaces), user_name and timestamp of DiffusionDB's metadata, in order, and counts.

    Prompts with a prompt_nsfw above max_prompt_nsfw are dropped, if the table has that column. The counts are rows, and
    those dropped as empty_prompts, nobody (unknown user), no_time and prompt_nsfw. Raise CheckpointError if the table
    is missing, cannot be read or lacks a column.
    """
    if not path.is_file():
        raise CheckpointError(f"sessions.log: expected DiffusionDB's metadata, got none at {path}")
    try:
        known = pq.read_schema(path).names
        columns = _COLUMNS + [name for name in ("prompt_nsfw",) if name in known]
        frame = pd.read_parquet(path, columns=columns) if set(_COLUMNS) <= set(known) else pd.DataFrame()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected DiffusionDB's metadata, got an unreadable file: {error}") from error
    missing = [name for name in _COLUMNS if name not in known]
    if missing:
        raise CheckpointError(f"{path}: missing columns: {', '.join(missing)}")
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
    """Return first, last, prompts (number, without immediate repeats) of each session.

    A session is a user's consecutive prompts, split at gaps of more than gap_minutes and where `shared_words` of two
    consecutive prompts is below `shared`. Prompts with equal timestamps keep their order.
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


def shared_words(first: frozenset[str], second: frozenset[str]) -> float:
    """Return the share of the smaller set's words that are in the other set; 0 if one is empty."""
    return len(first & second) / min(len(first), len(second)) if first and second else 0.0
