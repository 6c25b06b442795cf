"""Image seeds: functions of the user prompt alone, so that no other prompt, refiner or chunk changes them."""

from __future__ import annotations

import hashlib

from prip.errors import InputError

FIRST_EVALUATION_SEED, FIRST_SEARCH_SEED = 3_000_000_000, 3_600_000_000
"""Training draws from seeds below 2**31, so none of these; searches draw from the second on, evaluations below it."""
ROOM = FIRST_SEARCH_SEED - FIRST_EVALUATION_SEED
"""How many seeds each of the two has: all fit into 32 bits."""


def image_seeds(user_prompt: str, count: int, seed: int) -> list[int]:
    """Returns the seeds of a user prompt's images, the same for every refiner."""
    return _seeds(FIRST_EVALUATION_SEED, user_prompt, count, seed)


def search_seeds(user_prompt: str, count: int, seed: int) -> list[int]:
    """Returns the seeds on which a search for a user prompt draws: none of any evaluation."""
    return _seeds(FIRST_SEARCH_SEED, user_prompt, count, seed)


def _seeds(first: int, user_prompt: str, count: int, seed: int) -> list[int]:
    start = int.from_bytes(hashlib.sha256(f"{seed} {user_prompt}".encode()).digest()[:8], "big")
    return [first + (start + place) % ROOM for place in range(count)]


def check_seed(seed: int) -> int:
    """Returns the seed of an evaluation. Raises InputError when it is negative."""
    if seed < 0:
        raise InputError(f"seed must be at least 0, it is {seed}")
    return seed
