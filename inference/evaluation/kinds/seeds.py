"""Image seeds as functions of the user prompt alone, independent of other prompts, refiners and chunks."""

from __future__ import annotations

import hashlib

from prip.errors import InputError

FIRST_EVALUATION_SEED, FIRST_SEARCH_SEED = 3_000_000_000, 3_600_000_000
"""Training seeds are below 2**31. Evaluations draw from the first range, searches from the second."""
SEEDS = FIRST_SEARCH_SEED - FIRST_EVALUATION_SEED
"""Size of each range; all seeds fit into 32 bits."""


def image_seeds(user_prompt: str, count: int, seed: int) -> list[int]:
    """Return the seeds of a user prompt's images, the same for every refiner."""
    return _seeds(FIRST_EVALUATION_SEED, user_prompt, count, seed)


def search_seeds(user_prompt: str, count: int, seed: int) -> list[int]:
    """Return the seeds that a search for a user prompt draws with; no evaluation uses them."""
    return _seeds(FIRST_SEARCH_SEED, user_prompt, count, seed)


def _seeds(first: int, user_prompt: str, count: int, seed: int) -> list[int]:
    start = int.from_bytes(hashlib.sha256(f"{seed} {user_prompt}".encode()).digest()[:8], "big")
    return [first + (start + index) % SEEDS for index in range(count)]


def check_seed(seed: int) -> int:
    """Return the seed of an evaluation. Raises InputError when it is negative."""
    if seed < 0:
        raise InputError(f"seed: expected at least 0, got {seed}")
    return seed
