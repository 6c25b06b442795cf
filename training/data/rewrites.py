"""Pairs of a user prompt and its rewrite, which continues it."""

from __future__ import annotations

import pandas as pd

from prip.errors import InputError
from prip.text.prompts import check_user_prompt, join, own_words
from prip.text.prompts import prefix as prompt_prefix

from .evaluation_sets import normalise

REWRITES = ["user_prompt", "system_prompt"]


def continued(user_prompt: str, modifiers: str) -> str:
    """Return the user prompt continued by these modifiers, joined as the decoder would."""
    return join(user_prompt, f" {modifiers.strip(' .,')}")


def as_rewrite(first: str, last: str) -> tuple[str, str, str]:
    """Return the user prompt, system prompt and kind for the first and last prompt of a session.

    "extended": the last prompt continues the first one with modifiers. "carried": it does not, but its modifiers can
    continue the text before the first comma of the first prompt. The kinds "unchanged", "unusable" (no valid user
    prompt) and "lost" (no modifiers) are not rewrites and return both prompts as they are.
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
    """Return the rewrites of sessions (first, last, prompts), each pair once; the rejected pairs; and counts.

    Rewrites have user_prompt and system_prompt, rejected pairs also reason. Counts: sessions, single (of one prompt),
    each kind, repeated.
    """
    several = sessions[sessions["prompts"] > 1]
    kinds = [as_rewrite(first, last) for first, last in zip(several["first"], several["last"], strict=True)]
    frame = pd.DataFrame(kinds, columns=[*REWRITES, "kind"])
    good = frame["kind"].isin(["extended", "carried"])
    pairs = frame.loc[good, REWRITES].drop_duplicates().reset_index(drop=True)
    left_out = frame[~good].rename(columns={"kind": "reason"}).reset_index(drop=True)
    counts = {"sessions": len(sessions), "single": len(sessions) - len(several)}
    counts |= {
        kind: int((frame["kind"] == kind).sum()) for kind in ("unchanged", "unusable", "lost", "extended", "carried")
    }
    return pairs, left_out, counts | {"repeated": int(good.sum()) - len(pairs)}
