"""Styles: short names for phrases that follow the user's own words as if typed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ..text.prompts import own_words
from . import read_table
from .attributes import names


@cache
def styles() -> dict[str, str]:
    """Return the table styles.json: name to phrase."""
    return read_table("styles")


def phrase_of(style: str) -> str:
    """Return the phrase of a style by name, in any letter case; any other text is its own phrase, trimmed."""
    name = " ".join(style.split())
    return styles().get(name.lower(), own_words(name).lstrip(" ,."))


def with_styles(user_prompt: str, chosen: Sequence[str]) -> str:
    """Return the user prompt followed by the phrase of each style that it does not name already."""
    text = user_prompt
    for style in chosen:
        phrase = phrase_of(style)
        if not names(text, phrase):
            text = f"{own_words(text)}, {phrase}"
    return text
