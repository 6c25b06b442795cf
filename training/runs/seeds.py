"""Seeds as functions of their purpose: the only source of randomness in training.

Everything random is a function of (seed, stage, step, rank), so that a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import functools
import hashlib
import random

import numpy as np
import torch

DEV_SEED = 900_000
"""First image seed of the dev split; those of RL lie below it, those of evaluation from 3,000,000,000 on."""
CONFIRMING_SEED = 950_000
"""First image seed with which the chosen part is measured again, on seeds that took no part in the choice."""
DRAWING_SEEDS = 2**31
"""Image seeds of training data lie in range(DRAWING_SEEDS)."""


def derive_seed(*parts: int | str) -> int:
    """Return a number in [0, 2**63) that depends on every part and on their order."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(*parts: int | str) -> None:
    """Seed torch (on all devices), numpy and random with `derive_seed(*parts)`."""
    seed = derive_seed(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def permutation_indices(start: int, count: int, total: int, *parts: int | str) -> list[int]:
    """Return the elements start to start + count of an endless sequence of shuffled passes over range(total).

    Pass p is the permutation seeded by `derive_seed(*parts, p)`, so any element is found without those before it.
    """
    indices: list[int] = []
    while len(indices) < count:
        number, offset = divmod(start + len(indices), total)
        indices += _permutation(total, derive_seed(*parts, number))[offset : offset + count - len(indices)].tolist()
    return indices


def drawing_seeds(count: int, *parts: int | str) -> list[int]:
    """Return `count` consecutive image seeds for training data, from one that `parts` determine."""
    first = derive_seed(*parts)
    return [(first + number) % DRAWING_SEEDS for number in range(count)]


def image_seed(user_prompt: str, index: int, seed_pool: int) -> int:
    """Return image seed number `index` of the user prompt's pool in RL; it depends on nothing else."""
    digest = hashlib.sha256(user_prompt.encode()).digest()
    return int.from_bytes(digest[:8], "big") % (DEV_SEED // seed_pool) * seed_pool + index


@functools.lru_cache(maxsize=4)
def _permutation(total: int, seed: int) -> torch.Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))
