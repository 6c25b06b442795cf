"""Terms that ask for a fault, which nobody wants who has not named it: "badly cropped", "low quality"."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from importlib.resources import files

from .attributes import names


@cache
def faults() -> dict[str, tuple[str, ...]]:
    """Return the table faults.json: kind of fault to its terms, lower-case words with single spaces."""
    table = json.loads((files(__package__) / "faults.json").read_text(encoding="utf-8"))
    return {kind: tuple(terms) for kind, terms in table.items()}


@lru_cache(maxsize=1024)
def unwanted_faults(user_prompt: str) -> tuple[str, ...]:
    """Return the terms of all kinds of faults of which a prompt names none."""
    return tuple(
        term for terms in faults().values() if not any(names(user_prompt, one) for one in terms) for term in terms
    )
