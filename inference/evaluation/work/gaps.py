"""What the saved rows of a chunk lack under the present settings, and those rows made whole: nothing is done twice."""

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
    """What is to be measured of a chunk."""

    lacking: Tables
    """What of each refiner's texts has no rows, or rows that failed or show another text: whole prompts."""
    scorers: tuple[str, ...]
    """Scorers that the other rows have no scores of."""
    embedding: bool
    """Whether the other rows lack their diversity."""

    def __bool__(self) -> bool:
        return bool(self.scorers or self.embedding or any(len(table) for table in self.lacking.values()))


def gap_of(rows: pd.DataFrame | None, refined: Tables, scorers: Sequence[str], embed: bool) -> Gap:
    """Returns what the saved rows of a chunk, None where there are none, lack of the texts, scores and embeddings."""
    if rows is None:
        return Gap(refined, (), False)
    lacking, kept = {}, []
    for name, table in refined.items():
        own = rows[rows["refiner"] == name]
        if len(own) == len(table):
            failed = (own["error"] != "").to_numpy() & (table["error"] == "").to_numpy()
            other = own["refined_prompt"].to_numpy() != table["refined_prompt"].to_numpy()
            again = table["prompt_id"].isin(table["prompt_id"][failed | other])
            lacking[name] = table[again]
            kept.append(own[~again.to_numpy()])
        else:
            lacking[name] = table
    there = pd.concat(kept) if kept else rows[:0]
    if not len(there):
        return Gap(lacking, (), False)
    fine = there["error"] == ""
    missing = [name for name in scorers if SCORE + name not in there or there.loc[fine, SCORE + name].isna().any()]
    return Gap(lacking, tuple(missing), embed and VECTOR not in there)


def filled(
    rows: pd.DataFrame | None,
    gap: Gap,
    measurer: Measurer,
    prompts: Numbered,
    refined: Tables,
    images_per_prompt: int,
    seed: int,
) -> pd.DataFrame:
    """Returns the rows of a chunk, the saved ones and what they lack, in the order of the refiners and prompts.

    Rows of refiners that `refined` does not have are left out. Errors as of `Measurer.measure`.
    """
    new = measurer.measure(prompts, gap.lacking, images_per_prompt, seed)
    if rows is None:
        return new
    texts = {name: table[~table["prompt_id"].isin(gap.lacking[name]["prompt_id"])] for name, table in refined.items()}
    kept = [rows[(rows["refiner"] == name) & rows["prompt_id"].isin(own["prompt_id"])] for name, own in texts.items()]
    old = pd.concat(kept, ignore_index=True)
    if len(old) and (gap.scorers or gap.embedding):
        more = measurer.measure(prompts, texts, images_per_prompt, seed, gap.scorers, gap.embedding)
        names = ["image", "error", *(SCORE + name for name in gap.scorers)]
        names += ["within_distance", VECTOR] if gap.embedding else []
        old = old.assign(**{name: more[name].to_numpy() for name in names})
    if measurer.embedder is None and VECTOR in old:
        old = old.drop(columns=VECTOR).assign(within_distance=np.nan)
    both = pd.concat([one for one in (old, new) if len(one)], ignore_index=True)
    order = {name: place for place, name in enumerate(refined)}
    rank = [both["image_index"], both["prompt_id"], both["refiner"].map(order)]
    return both.iloc[np.lexsort([one.to_numpy() for one in rank])].reset_index(drop=True)
