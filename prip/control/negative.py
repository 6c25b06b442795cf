"""Suggestions for the negative prompt: what the user refused, and faults that the prompt does not ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import zip_longest

from ..text.clip_tokens import CLIP_TOKEN_LIMIT, count_clip_tokens
from ..text.prompts import has_words, own_words
from ..text.terms import TermTable
from ..text.webui_syntax import read_prompt
from . import read_table
from .attributes import names
from .faults import unwanted_faults
from .refusals import refused_phrases


def negative_prompt(
    prompt: str,
    own: str = "",
    token_limit: int = CLIP_TOKEN_LIMIT,
    count_tokens: Callable[[str], int] = count_clip_tokens,
) -> str:
    """Return a negative prompt for a prompt: what it refuses, and faults that it does not ask for.

    ```python
    negative_prompt("a beach without people, at night")  # "people, low quality, badly framed, blurry, ..."
    ```

    No model is needed. Nothing that the prompt asks for is suggested: "a cat with bokeh" gets no "blurry".

    Args:
        prompt: A user prompt or a refined prompt.
        own: The user's own negative prompt. It stays first and unchanged, without trailing periods and
            commas; none of its terms is suggested again.
        token_limit: Most tokens of the result; a longer `own` is returned as it is.
        count_tokens: Counts the tokens of a text.

    Returns:
        Terms separated by commas, the refused ones first; for a prompt without words, `own`.
    """
    if not has_words(prompt):
        return own
    text = own_words(own)
    for term in (*refused_phrases(prompt), *unwanted_in(prompt)):
        longer = f"{text}, {term}" if text.strip() else term
        if not names(text, term) and count_tokens(longer) <= token_limit:
            text = longer
    return own if text == own_words(own) else text


def unwanted_in(prompt: str) -> Iterator[str]:
    """Yield the faults to suggest, the first of each kind before the second of any."""
    reading = read_prompt(prompt)
    words = ", ".join([reading.text, *reading.choices])
    unwanted = frozenset(unwanted_faults(words))
    kinds = [
        [term for term in kind["terms"] if term in unwanted]
        for name, kind in _kinds().items()
        if not _excuses(name).find(words)
    ]
    for row in zip_longest(*kinds):
        yield from (term for term in row if term is not None)


@cache
def _kinds() -> dict[str, dict[str, list[str]]]:
    return read_table("negative")


@cache
def _excuses(kind: str) -> TermTable:
    """Return the terms of prompts for which faults of a kind are no faults."""
    return TermTable(_kinds()[kind]["unless"])
