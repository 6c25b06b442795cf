"""Training pairs of a text and an image from the tables of prepare, and word dropout."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from prip.errors import CheckpointError
from prip.files import hash_of

from .pivot_cache import PivotCache

PREFERRED_IMAGES, SYSTEM_PROMPTS, PIVOTS = "preferred_images.parquet", "system_prompts.parquet", "pivots"
MANIFEST = "manifest.json"
"""Hashes of all other files; optional."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def data_hashes(data: Path, table: str) -> dict[str, str]:
    """Return the hashes of a table in `data` and of the pivots, from the manifest if it has them."""
    manifest = data / MANIFEST
    known = json.loads(manifest.read_text(encoding="utf-8"))["sha256"] if manifest.is_file() else {}
    return {name: known.get(name) or hash_of(data / name) for name in (table, PIVOTS)}


@dataclass(frozen=True)
class Pairs:
    """Texts, and for each the name of an image ("" for none)."""

    texts: list[str]
    image_names: list[str]

    def __len__(self) -> int:
        return len(self.texts)


class NoPivots:
    """Pivots of length 0, for texts without images."""

    pivot_length, pivot_width = 0, 1

    def __getitem__(self, names: Sequence[str]) -> Tensor:
        return torch.zeros(len(names), self.pivot_length, self.pivot_width)


@dataclass(frozen=True)
class Splits:
    """The pairs for training and for choosing the best checkpoint, and the pivots of their images."""

    train: Pairs
    dev: Pairs
    pivots: PivotCache | NoPivots


def read_preferred_images(data: Path, images: Literal["preferred", "random"]) -> Splits:
    """Read user prompts, each with a preferred or a random image. Raise CheckpointError if a file, column or pivot is
    missing."""
    column = {"preferred": "image_name", "random": "random_image_name"}[images]
    return _read(data, PREFERRED_IMAGES, "user_prompt", column)


def read_system_prompts(data: Path) -> Splits:
    """Read system prompts, each with an image made from it; errors as in read_preferred_images."""
    return _read(data, SYSTEM_PROMPTS, "system_prompt", "image_name")


def read_rewrites(table: Path) -> Splits:
    """Read the system prompts of a table of rewrites. Raise CheckpointError if the file, a column or a split is
    missing."""
    if not table.is_file():
        raise CheckpointError(f"rewrites: expected a table of prip-train rewrites, got none at {table}")
    frame = pd.read_parquet(table)
    columns = ("user_prompt", "system_prompt", "split")
    parts = _by_split(frame.assign(image_name=""), table, "system_prompt", "image_name", columns)
    return Splits(*parts, NoPivots())


def _read(data: Path, table: str, text_column: str, image_column: str) -> Splits:
    if not (data / table).is_file():
        raise CheckpointError(f"data: expected a folder that prip-train prepare wrote, but {data / table} is missing")
    frame = pd.read_parquet(data / table)
    parts = _by_split(frame, data / table, text_column, image_column, (text_column, image_column, "split"))
    pivots = PivotCache(data / PIVOTS)
    missing = [name for name in frame[image_column] if name not in pivots]
    if missing:
        raise CheckpointError(f"{data / table}: {len(missing)} images have no pivot, {missing[0]!r} for example")
    return Splits(*parts, pivots)


def _by_split(
    frame: pd.DataFrame, path: Path, text_column: str, image_column: str, columns: Sequence[str]
) -> tuple[Pairs, Pairs]:
    """Return the pairs of train and of dev. Raise CheckpointError if one of `columns` is missing or a split is
    empty."""
    missing = set(columns) - set(frame.columns)
    if missing:
        raise CheckpointError(f"{path}: missing columns: {', '.join(sorted(missing))}")
    parts = []
    for split in ("train", "dev"):
        rows = frame[frame["split"] == split]
        if rows.empty:
            raise CheckpointError(f"{path}: no row has the split {split!r}")
        parts.append(Pairs(rows[text_column].tolist(), rows[image_column].tolist()))
    return parts[0], parts[1]


def drop_words(text: str, probability: float, generator: random.Random) -> str:
    """Replace each word of `text`, with `probability`, by a pseudo-word of 3 to 9 random letters.

    Pseudo-words stand for unknown words, to which a model so trained responds with an average. Words are separated by
    spaces and keep their punctuation.
    """
    words = text.split(" ")
    for index, word in enumerate(words):
        core = word.strip(".,;:!?\"'()")
        if core and generator.random() < probability:
            pseudo = "".join(generator.choices(LETTERS, k=generator.randint(3, 9)))
            words[index] = word.replace(core, pseudo, 1)
    return " ".join(words)


def drop_prefix_words(text: str, probability: float, generator: random.Random) -> tuple[str, int]:
    """Apply drop_words to the text before the first comma.

    Return the text and the number of its leading characters without a loss: those before the comma if a word was
    replaced, else 0.
    """
    prefix, comma, rest = text.partition(",")
    dropped = drop_words(prefix, probability, generator)
    return dropped + comma + rest, len(dropped) if dropped != prefix else 0


def batches_of(pairs: Pairs, batch_size: int) -> list[Pairs]:
    """Split the pairs, in order, into batches; the last may be smaller."""
    starts = range(0, len(pairs), batch_size)
    return [
        Pairs(pairs.texts[start : start + batch_size], pairs.image_names[start : start + batch_size])
        for start in starts
    ]


def choose(pairs: Pairs, indices: Sequence[int]) -> Pairs:
    """Return the pairs at `indices`."""
    return Pairs([pairs.texts[index] for index in indices], [pairs.image_names[index] for index in indices])
