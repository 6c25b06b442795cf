"""Pairs of a user prompt and what is to be made of it, for a decoder that goes on where the user prompt ends."""

from __future__ import annotations

import pandas as pd

from prip.errors import InputError
from prip.text.prompts import check_user_prompt, join, own_words
from prip.text.prompts import prefix as prompt_prefix

from .evaluation_sets import normalise

REWRITES = ["user_prompt", "system_prompt"]


def continued(user_prompt: str, modifiers: str) -> str:
    """Returns the user prompt continued by these modifiers, as the decoder would continue it."""
    return join(user_prompt, f" {modifiers.strip(' .,')}")


def as_rewrite(first: str, last: str) -> tuple[str, str, str]:
    """Returns (user prompt, system prompt, kind) of a session's first and last prompt.

    kind is "extended" where the last prompt is the first one, a comma, and modifiers. Where it is anything else that a
    decoder could not write, but has modifiers, these are "carried" over: they continue what stands before the first
    comma of the first prompt. "unchanged", "unusable" (words that cannot be a user prompt) and "lost" (no modifier that
    could be carried over) are no rewrites; both prompts are then returned as they are.
    """
    if normalise(first) == normalise(last):
        return first, last, "unchanged"
    prefix, start = prompt_prefix(first), own_words(first.partition(",")[0])
    try:
        check_user_prompt(start)
    except InputError:
        return first, last, "unusable"
    if last.startswith(prefix) and own_words(last[len(prefix) :]):
        return first, continued(first, last[len(prefix) :]), "extended"
    modifiers = own_words(last.partition(",")[2])
    return (start, continued(start, modifiers), "carried") if modifiers else (first, last, "lost")


def rewrites_of_sessions(sessions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
    """Returns user_prompt, system_prompt of the sessions that make one, each pair once; user_prompt, system_prompt,
    reason of those that do not; and counts: sessions, single (of one prompt), those of each kind, repeated.

    sessions: first, last, prompts.
    """
    several = sessions[sessions["prompts"] > 1]
    found = [as_rewrite(first, last) for first, last in zip(several["first"], several["last"], strict=True)]
    frame = pd.DataFrame(found, columns=[*REWRITES, "kind"])
    good = frame["kind"].isin(["extended", "carried"])
    pairs = frame.loc[good, REWRITES].drop_duplicates().reset_index(drop=True)
    left_out = frame[~good].rename(columns={"kind": "reason"}).reset_index(drop=True)
    counts = {"sessions": len(sessions), "single": len(sessions) - len(several)}
    counts |= {
        kind: int((frame["kind"] == kind).sum()) for kind in ("unchanged", "unusable", "lost", "extended", "carried")
    }
    return pairs, left_out, counts | {"repeated": int(good.sum()) - len(pairs)}
