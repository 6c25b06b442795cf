"""Styles: short names for phrases that stand right behind the user's own words, as if the user had typed them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from ..text.prompts import own_words
from .attributes import names


@cache
def styles() -> dict[str, str]:
    """Return the table styles.json: name to phrase."""
    return dict(json.loads((files(__package__) / "styles.json").read_text(encoding="utf-8")))


def phrase_of(style: str) -> str:
    """Return the phrase of a style by its name, in any casing; what is no name is its own phrase, trimmed."""
    name = " ".join(style.split())
    return styles().get(name.lower(), own_words(name).lstrip(" ,."))


def with_styles(user_prompt: str, chosen: Sequence[str]) -> str:
    """Return the user prompt with the phrases of styles behind it, each once; those that it names already add nothing.

    Without styles it comes back as it is.
    """
    text = user_prompt
    for style in chosen:
        phrase = phrase_of(style)
        if not names(text, phrase):
            text = f"{own_words(text)}, {phrase}"
    return text
