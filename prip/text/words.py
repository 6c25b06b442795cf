"""The words of a text: runs of letters and digits, lower-case."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+")
_NO_WORD = re.compile(r"[\W_]+")


def words_of(text: str) -> list[str]:
    """Return the runs of letters and digits in a text, lower-case."""
    return _WORD.findall(text.lower())


def spaced_words(text: str) -> str:
    """Return a text in lower case in which every run of other characters is one space; "Close-up (" is "close up "."""
    return _NO_WORD.sub(" ", text.lower())
