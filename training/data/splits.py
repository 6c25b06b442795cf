"""The train and dev splits of prompts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from prip.errors import CheckpointError, InputError
from prip.prior.series import position_of, series_of

from ..runs.seeds import derive_seed
from .evaluation_sets import normalise

_RANK = {"train": 0, "dev": 1, "test": 2}


def read_prompts(path: Path, column: str, limit: int, seed: int) -> pd.DataFrame:
    """Return prompt and split (train or dev) from the table at `path`, without duplicates, in its order.

    Args:
        path: a parquet table with `column` and split; a prompt in several splits counts as test, else as dev.
        column: the column of prompts.
        limit: maximum number of prompts, chosen at random by `seed`; 0 for all.
        seed: seed of that choice.

    Raises:
        CheckpointError: if the table or a column is missing.
        InputError: if a split is unknown or empty.
    """
    if not path.is_file():
        raise CheckpointError(f"prompts: expected a table, got none at {path}; run prip-train world first")
    frame = pd.read_parquet(path)
    missing = {column, "split"} - set(frame.columns)
    if missing:
        raise CheckpointError(f"{path}: missing columns: {', '.join(sorted(missing))}")
    unknown = sorted(set(frame["split"]) - _RANK.keys())
    if unknown:
        raise InputError(f"{path}: split: expected one of {', '.join(_RANK)}, got {', '.join(map(str, unknown))}")
    frame = frame.assign(rank=frame["split"].map(_RANK))
    prompts = frame.sort_values("rank", ascending=False, kind="stable").drop_duplicates(column).sort_index()
    prompts = limit_prompts(prompts[prompts["split"] != "test"], column, limit, seed)
    result = prompts[[column, "split"]].rename(columns={column: "prompt"}).reset_index(drop=True)
    check_splits(result, str(path))
    return result


def limit_prompts(frame: pd.DataFrame, column: str, limit: int, seed: int) -> pd.DataFrame:
    """Return the rows of at most `limit` prompts in `column`, chosen at random by `seed`; all rows for 0."""
    prompts = frame[column].drop_duplicates()
    if not limit or len(prompts) <= limit:
        return frame
    chance = pd.Series([derive_seed(seed, "limit", text) for text in prompts], index=prompts.index)
    return frame[frame[column].isin(prompts[chance.rank() <= limit])]


def split_by_series(prompts: pd.Series, dev_share: float) -> pd.Series:
    """Return "dev" for about dev_share of the distinct prompts, else "train".

    Users edit a prompt again and again, so prompts of one series (`series_of`) stay together, and those that differ
    only in case, spaces or punctuation. A series larger than what is left of the dev split is train: in large data sets
    common beginnings and endings join many users' prompts into one. The order of the prompts does not matter.
    """
    words = {prompt: normalise(prompt) for prompt in prompts}
    distinct = sorted(words, key=lambda prompt: (words[prompt], prompt))
    names = [words[first] for first in series_of(distinct, [words[prompt] for prompt in distinct])]
    series = pd.Series(names, index=distinct, dtype=object)
    room, dev = round(dev_share * len(distinct)), set[str]()
    sizes = series.value_counts()
    for name in sorted(sizes.index, key=lambda name: (position_of(name), name)):
        if sizes[name] <= room:
            dev.add(name)
            room -= int(sizes[name])
    return prompts.map(series.isin(dev)).map({True: "dev", False: "train"})


def check_splits(frame: pd.DataFrame, name: str) -> None:
    """Raise InputError unless `split` has rows of train and of dev."""
    for split in ("train", "dev"):
        if not (frame["split"] == split).any():
            raise InputError(f"{name}: expected prompts of the split {split!r}, got none")
