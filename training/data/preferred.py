"""Mining of preferred images: of those made for one user prompt, the ones that score highest (Eq. 6's i*)."""

from __future__ import annotations

import pandas as pd

from ..runs.seeds import derive_seed


def mine_preferred(images: pd.DataFrame, per_prompt: int, seed: int) -> pd.DataFrame:
    """Returns user_prompt, image_name, random_image_name, split, sorted by prompt and then best first.

    images: prompt, image_name, score, split; a prompt with fewer than two images gives no row, every other one its
    per_prompt best, or all if it has fewer. random_image_name: as many of the prompt's images, drawn uniformly without
    replacement; the draw depends on seed and names alone.
    """
    counts = images.groupby("prompt")["image_name"].transform("size")
    frame = images[counts >= 2]
    chance = [derive_seed(seed, "random image", name) for name in frame["image_name"]]
    frame = frame.assign(chance=pd.Series(chance, index=frame.index, dtype="uint64"))
    best = _first(frame, ["score", "image_name"], [False, True], per_prompt)
    random = _first(frame, ["chance", "image_name"], [True, True], per_prompt)
    return pd.DataFrame(
        {
            "user_prompt": best["prompt"].to_numpy(),
            "image_name": best["image_name"].to_numpy(),
            "random_image_name": random["image_name"].to_numpy(),
            "split": best["split"].to_numpy(),
        }
    )


def _first(frame: pd.DataFrame, by: list[str], ascending: list[bool], count: int) -> pd.DataFrame:
    """Returns the first `count` rows of each prompt in this order; the prompts are sorted."""
    ordered = frame.sort_values(["prompt", *by], ascending=[True, *ascending])
    return ordered[ordered.groupby("prompt").cumcount() < count]
