"""Names of artists and studios in prompts, and the words that introduce them."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files


@cache
def _table() -> dict[str, tuple[str, ...]]:
    table = json.loads((files(__package__) / "artists.json").read_text(encoding="utf-8"))
    return {name: tuple(terms) for name, terms in table.items()}


def artist_names() -> tuple[str, ...]:
    """Return the names in lower case, with single spaces."""
    return _table()["names"]


def artist_beginnings() -> tuple[str, ...]:
    """Return the words that introduce a name; one that ends in a space is a whole word, others are prefixes."""
    return _table()["beginnings"]
