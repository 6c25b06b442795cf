"""Which rows of a DiffusionDB are used at all."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

BLURRED = 2.0
"""The image_nsfw of an image that was blurred before it was published."""


def filter_rows(
    rows: pd.DataFrame, max_image_nsfw: float, max_prompt_nsfw: float, keep_blurred: bool, keep_duplicates: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Returns the rows that pass, with their index, and how many do not, by the first reason.

    rows: image_nsfw, prompt_nsfw (nan where they are unknown: such a row passes), drawing. Of rows with one `drawing`,
    the first that passes all else is no duplicate.
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
    """Returns which rows pass all tests, and how many do not, by the first test that they fail.

    tests: by name and in order, whether each row fails.
    """
    counts, passed = {}, pd.Series(True, index=next(iter(tests.values())).index)
    for name, fails in tests.items():
        counts[name] = int((passed & fails).sum())
        passed &= ~fails
    return passed, counts
