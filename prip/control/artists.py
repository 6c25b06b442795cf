"""Names of artists and studios in prompts, and the words that introduce them."""

from __future__ import annotations

from functools import cache

from . import read_table


@cache
def _table() -> dict[str, tuple[str, ...]]:
    return {name: tuple(terms) for name, terms in read_table("artists").items()}


def artist_names() -> tuple[str, ...]:
    """Return the names in lower case, with single spaces."""
    return _table()["names"]


def artist_beginnings() -> tuple[str, ...]:
    """Return the words that introduce a name; one that ends in a space is a whole word, others are prefixes."""
    return _table()["beginnings"]
