"""Which prompts train and which choose the best checkpoint."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from prip.errors import CheckpointError, InputError

from ..runs.seeds import derive_seed
from .evaluation_sets import normalise

_RANK = {"train": 0, "dev": 1, "test": 2}


def read_prompts(path: Path, column: str, limit: int, seed: int) -> pd.DataFrame:
    """Returns prompt, split (train or dev) from the table at `path`, without duplicates, in the table's order.

    A prompt that stands in several splits belongs to the one held back most: test, then dev. limit: at most so many
    are returned, chosen at random by `seed`; 0 for all.
    Raises CheckpointError if the table or a column is missing, InputError for another split or if one stays empty.
    """
    if not path.is_file():
        raise CheckpointError(
            f"prompts: expected the table {path}, but it is missing; does prip-train world come first?"
        )
    frame = pd.read_parquet(path)
    missing = {column, "split"} - set(frame.columns)
    if missing:
        raise CheckpointError(f"{path}: columns are missing: {', '.join(sorted(missing))}")
    foreign = sorted(set(frame["split"]) - _RANK.keys())
    if foreign:
        raise InputError(f"{path}: split: expected one of {', '.join(_RANK)}, got {', '.join(map(str, foreign))}")
    frame = frame.assign(rank=frame["split"].map(_RANK))
    held = frame.sort_values("rank", ascending=False, kind="stable").drop_duplicates(column).sort_index()
    held = held[held["split"] != "test"]
    held = limit_prompts(held, column, limit, seed)
    result = held[[column, "split"]].rename(columns={column: "prompt"}).reset_index(drop=True)
    check_splits(result, str(path))
    return result


def limit_prompts(frame: pd.DataFrame, column: str, limit: int, seed: int) -> pd.DataFrame:
    """Returns the rows of at most `limit` of the prompts in `column`, chosen at random by `seed`; all rows for 0."""
    prompts = frame[column].drop_duplicates()
    if not limit or len(prompts) <= limit:
        return frame
    chance = pd.Series([derive_seed(seed, "limit", text) for text in prompts], index=prompts.index)
    return frame[frame[column].isin(prompts[chance.rank() <= limit])]


def split_by_prompt(prompts: pd.Series, dev_share: float) -> pd.Series:
    """Returns "dev" for about dev_share of the prompts and "train" for the others, by their words alone: prompts that
    differ in case, spaces or punctuation stay together."""
    dev = prompts.map(lambda prompt: derive_seed("split", normalise(prompt)) < dev_share * 2**63)
    return dev.map({True: "dev", False: "train"})


def check_splits(frame: pd.DataFrame, name: str) -> None:
    """Raises InputError unless the column `split` has rows of train and of dev."""
    for split in ("train", "dev"):
        if not (frame["split"] == split).any():
            raise InputError(f"{name}: expected prompts of the split {split!r}, got none")
