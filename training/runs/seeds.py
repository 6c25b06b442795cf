"""Randomness as a function of (seed, stage, step, rank)."""

from __future__ import annotations

import functools
import hashlib
import random

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Returns a number in [0, 2**63) that depends on every part and on their order."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(*parts: int | str) -> None:
    """Seeds torch (all devices), numpy and random by `derive_seed(*parts)`."""
    seed = derive_seed(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def permutation_indices(start: int, count: int, total: int, *parts: int | str) -> list[int]:
    """Returns places start to start + count of an endless row of shuffled passes over range(total).

    Pass p is the permutation seeded by `derive_seed(*parts, p)`, so that any place can be had without those before it.
    """
    chosen: list[int] = []
    while len(chosen) < count:
        number, offset = divmod(start + len(chosen), total)
        chosen += _permutation(total, derive_seed(*parts, number))[offset : offset + count - len(chosen)].tolist()
    return chosen


@functools.lru_cache(maxsize=4)
def _permutation(total: int, seed: int) -> torch.Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))
