"""Scores of many images on disk, part by part, and their mean and deviation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from prip.errors import InputError
from prip.protocols import Reward

from ..atomic import replace_file
from .images import read_batches


def score_parts(
    rows: pd.DataFrame, rewards: Sequence[Reward], folder: Path, batch_size: int, progress: bool
) -> pd.DataFrame:
    """Returns image_name, part, reason and a float32 column for each reward, with the index of `rows`.

    rows: image_name, part, path, text (what the image is scored for). reason: why an image has no scores, "" if it has
    them. Each part's table is kept in `folder`, and read from there if it is there and of the same images.
    """
    tables = []
    with tqdm(total=len(rows), desc="score", unit="image", disable=not progress, mininterval=1) as bar:
        for part, members in rows.groupby("part", sort=False):
            path = folder / f"{part}.parquet"
            table = pd.read_parquet(path) if path.exists() else None
            if table is not None and table["image_name"].tolist() == members["image_name"].tolist():
                bar.update(len(members))
            else:
                table = _score(members, rewards, batch_size, bar)
                replace_file(path, partial(table.to_parquet, index=False))
            tables.append(table.set_index(members.index))
    return pd.concat(tables).loc[rows.index]


def _score(rows: pd.DataFrame, rewards: Sequence[Reward], batch_size: int, bar: tqdm) -> pd.DataFrame:
    texts, bad = rows["text"].tolist(), dict[int, str]()
    scores = {reward.name: np.full(len(rows), np.nan, np.float32) for reward in rewards}
    for batch in read_batches(rows["path"].tolist(), batch_size, bad):
        for reward in rewards:
            scores[reward.name][batch.places] = reward([texts[place] for place in batch.places], batch.images).numpy()
        bar.update(len(batch.places))
    bar.update(len(bad))
    for name, values in scores.items():
        for place in np.flatnonzero(~np.isfinite(values)):
            bad.setdefault(int(place), f"its score by {name} is {values[place]}")
    reasons = [bad.get(place, "") for place in range(len(rows))]
    return rows[["image_name", "part"]].assign(reason=reasons, **scores)


def means_and_deviations(scores: pd.DataFrame, names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns mean and deviation of each column in `names`. Raises InputError for a reward that is constant."""
    means = {name: float(scores[name].mean()) for name in names}
    deviations = {name: float(scores[name].std(ddof=0)) for name in names}
    constant = [name for name, deviation in deviations.items() if not deviation > 0]
    if constant:
        raise InputError(f"rewards: wanted scores that differ, but {constant[0]} gives one score to all images")
    return means, deviations


def raw_scores(scores: pd.DataFrame, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Returns the columns `names` as float32 tensors (n,), as `StandardisedSum.combine` wants them."""
    return {name: torch.from_numpy(scores[name].to_numpy(np.float32, copy=True)) for name in names}
