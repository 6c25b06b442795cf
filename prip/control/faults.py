"""Terms for faults that are unwanted unless a prompt names them: "badly cropped", "low quality"."""

from __future__ import annotations

from functools import cache, lru_cache

from . import read_table
from .attributes import names


@cache
def faults() -> dict[str, tuple[str, ...]]:
    """Return the table faults.json: kind of fault to its terms in lower case."""
    return {kind: tuple(terms) for kind, terms in read_table("faults").items()}


@lru_cache(maxsize=1024)
def unwanted_faults(user_prompt: str) -> tuple[str, ...]:
    """Return the terms of each kind of fault that the prompt does not name."""
    return tuple(
        term for terms in faults().values() if not any(names(user_prompt, term) for term in terms) for term in terms
    )
