"""Finds what the saved rows of a chunk lack under the present settings, and adds it; nothing is measured twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..analysis.results import SCORE
from .chunks import Numbered
from .measuring import VECTOR, Measurer

Tables = Mapping[str, pd.DataFrame]
"""prompt_id, image_index, refined_prompt, error, by refiner."""


@dataclass(frozen=True)
class Gap:
    """What remains to be measured of a chunk."""

    lacking: Tables
    """The refined prompts without rows, or whose rows failed or show another text, always for whole user prompts."""
    scorers: tuple[str, ...]
    """Scorers without scores for the other rows."""
    embedding: bool
    """Whether the other rows lack their diversity."""

    def __bool__(self) -> bool:
        return bool(self.scorers or self.embedding or any(len(table) for table in self.lacking.values()))


def gap_of(rows: pd.DataFrame | None, refined: Tables, scorers: Sequence[str], embed: bool) -> Gap:
    """Return what the saved rows of a chunk (None for none) lack of the texts, scores and embeddings."""
    if rows is None:
        return Gap(refined, (), False)
    lacking, kept = {}, []
    for name, table in refined.items():
        saved = rows[rows["refiner"] == name]
        if len(saved) == len(table):
            failed = (saved["error"] != "").to_numpy() & (table["error"] == "").to_numpy()
            changed = saved["refined_prompt"].to_numpy() != table["refined_prompt"].to_numpy()
            again = table["prompt_id"].isin(table["prompt_id"][failed | changed])
            lacking[name] = table[again]
            kept.append(saved[~again.to_numpy()])
        else:
            lacking[name] = table
    present = pd.concat(kept) if kept else rows[:0]
    if not len(present):
        return Gap(lacking, (), False)
    measured = present[present["error"] == ""]
    missing = [name for name in scorers if SCORE + name not in present or measured[SCORE + name].isna().any()]
    return Gap(lacking, tuple(missing), embed and VECTOR not in present)


def filled(
    rows: pd.DataFrame | None,
    gap: Gap,
    measurer: Measurer,
    prompts: Numbered,
    refined: Tables,
    *,
    images_per_prompt: int,
    seed: int,
) -> pd.DataFrame:
    """Return the complete rows of a chunk in the order of refiners and prompts: the saved ones and what they lack.

    Rows of refiners that are not in `refined` are dropped. Errors as for `Measurer.measure`.
    """
    new = measurer.measure(prompts, gap.lacking, images_per_prompt, seed)
    if rows is None:
        return new
    texts = {name: table[~table["prompt_id"].isin(gap.lacking[name]["prompt_id"])] for name, table in refined.items()}
    kept = [
        rows[(rows["refiner"] == name) & rows["prompt_id"].isin(table["prompt_id"])] for name, table in texts.items()
    ]
    old = pd.concat(kept, ignore_index=True)
    if len(old) and (gap.scorers or gap.embedding):
        more = measurer.measure(prompts, texts, images_per_prompt, seed, scorers=gap.scorers, embed=gap.embedding)
        names = ["image", "error", *(SCORE + name for name in gap.scorers)]
        names += ["within_distance", VECTOR] if gap.embedding else []
        old = old.assign(**{name: more[name].to_numpy() for name in names})
    if measurer.embedder is None and VECTOR in old:
        old = old.drop(columns=VECTOR).assign(within_distance=np.nan)
    both = pd.concat([table for table in (old, new) if len(table)], ignore_index=True)
    order = {name: index for index, name in enumerate(refined)}
    ranks = [both["image_index"], both["prompt_id"], both["refiner"].map(order)]
    return both.iloc[np.lexsort([rank.to_numpy() for rank in ranks])].reset_index(drop=True)
