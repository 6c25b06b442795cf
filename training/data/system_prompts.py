"""The system prompts that the decoder learns from: those whose own image scores well."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from prip.errors import InputError


def filter_system_prompts(images: pd.DataFrame, keep_share: float, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Returns system_prompt, image_name, split, one row a prompt, sorted by prompt.

    images: prompt, image_name, score, split, and a column of raw scores for each reward that `thresholds` names. Of
    each prompt, that one of the images whose raw scores all lie above the thresholds stands for it which has the
    highest score. Kept are, of each split, the keep_share of these prompts with the highest score.
    Raises InputError for a threshold of a reward that is not there.
    """
    foreign = sorted(set(thresholds) - set(images.columns))
    if foreign:
        raise InputError(f"thresholds: expected names of rewards that are used, got {', '.join(foreign)}")
    for name, threshold in thresholds.items():
        images = images[images[name] > threshold]
    ordered = images.sort_values(["prompt", "score", "image_name"], ascending=[True, False, True])
    best = ordered.drop_duplicates("prompt")
    least = best.groupby("split")["score"].transform(lambda scores: scores.quantile(1 - keep_share))
    chosen = best[best["score"] >= least]
    return chosen[["prompt", "image_name", "split"]].rename(columns={"prompt": "system_prompt"}).reset_index(drop=True)
