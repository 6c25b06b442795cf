"""Filters of the rows of a DiffusionDB."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

BLURRED = 2.0
"""image_nsfw of an image that was blurred before publication."""


def filter_rows(
    rows: pd.DataFrame, max_image_nsfw: float, max_prompt_nsfw: float, keep_blurred: bool, keep_duplicates: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows that pass, with their index, and the number that fail by their first reason.

    `rows` has image_nsfw and prompt_nsfw (nan, for unknown, passes) and drawing. Of the rows with the same `drawing`,
    the first that passes all other tests is kept.
    """
    blurred = rows["image_nsfw"] >= BLURRED
    tests = {
        "blurred": blurred & (not keep_blurred),
        "image_nsfw": (rows["image_nsfw"] > max_image_nsfw) & ~blurred,
        "prompt_nsfw": rows["prompt_nsfw"] > max_prompt_nsfw,
    }
    passed, counts = passing(tests)
    repeated = rows.loc[passed, "drawing"].duplicated() & (not keep_duplicates)
    counts["duplicates"] = int(repeated.sum())
    passed[repeated.index[repeated]] = False
    return rows[passed], counts


def passing(tests: Mapping[str, pd.Series]) -> tuple[pd.Series, dict[str, int]]:
    """Return which rows pass all tests (True means that a row fails), and the number that fail by their first test."""
    counts, passed = {}, pd.Series(True, index=next(iter(tests.values())).index)
    for name, fails in tests.items():
        counts[name] = int((passed & fails).sum())
        passed &= ~fails
    return passed, counts
