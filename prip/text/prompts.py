"""Prompts as plain strings: checks, the user's own words, and what refining added to them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from ..errors import InputError
from .regions import split_regions
from .webui_syntax import without_tags

MAX_CHARACTERS = 10_000
"""Longest user prompt that is accepted, in characters."""
_ENDS = frozenset(".,\u3001\u3002\uff0c\uff0e\uff61\uff64")
"""Periods and commas, also those of Chinese and Japanese."""


def check_user_prompt(user_prompt: object, name: str = "prompt") -> str:
    """Return the user prompt if it can be refined.

    Args:
        user_prompt: The prompt to check.
        name: What errors call it.

    Raises:
        InputError: It is not a string, has no word (see `has_words`), is longer than MAX_CHARACTERS, or contains an
            unpaired surrogate or a control character other than a tab or line break.
    """
    if not isinstance(user_prompt, str):
        raise InputError(f"{name}: expected a string, got {_kind(user_prompt)}")
    if len(user_prompt) > MAX_CHARACTERS:
        raise InputError(f"{name}: expected at most {MAX_CHARACTERS:,} characters, got {len(user_prompt):,}")
    for position, character in enumerate(user_prompt, start=1):
        category = unicodedata.category(character)
        if category in ("Cc", "Cs") and character not in "\t\n\r":
            unwanted = "control characters" if category == "Cc" else "unpaired surrogates"
            raise InputError(f"{name}: expected no {unwanted}, got U+{ord(character):04X} at character {position}")
    if not has_words(user_prompt):
        blank = "an empty string" if not user_prompt else "only blanks" if user_prompt.isspace() else repr(user_prompt)
        raise InputError(f"{name}: expected at least one word, got {blank}")
    return user_prompt


def check_user_prompts(prompt: object) -> list[str]:
    """Return one user prompt, or several, as a list if each can be refined.

    Raises:
        InputError: `prompt` is neither a string nor a sequence of strings, or one fails `check_user_prompt`.
    """
    if isinstance(prompt, str):
        return [check_user_prompt(prompt)]
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray):
        raise InputError(f"prompt: expected a string or a list of strings, got {_kind(prompt)}")
    return [check_user_prompt(user_prompt, f"prompt[{index}]") for index, user_prompt in enumerate(prompt)]


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"


def has_words(user_prompt: str) -> bool:
    """Return whether a prompt says anything: not if it is empty, or only blanks, periods, commas, invisible characters
    and tags such as <lora:name:0.8>."""
    return any(
        not (character in _ENDS or character.isspace() or unicodedata.category(character) == "Cf")
        for character in without_tags(user_prompt)
    )


def own_words(user_prompt: str) -> str:
    """Return the user prompt without trailing spaces, periods and commas."""
    end = len(user_prompt)
    while end and (user_prompt[end - 1] in _ENDS or user_prompt[end - 1].isspace()):
        end -= 1
    return user_prompt[:end]


def prefix(user_prompt: str) -> str:
    """Return the text that the prompt decoder continues: the user's own words and a comma."""
    return own_words(user_prompt) + ","


def join(user_prompt: str, continuation: str) -> str:
    """Return the refined prompt: the user's own words, a comma, and the decoder's continuation."""
    return prefix(user_prompt) + continuation


def modifiers_added(user_prompt: str, refined_prompt: str) -> list[str]:
    """Return the modifiers that a refined prompt adds to its user prompt, including styles.

    Args:
        user_prompt: The prompt that was refined.
        refined_prompt: A text that `refine` returned for it.

    Returns:
        The modifiers in order, without the commas between them, those of regions one after the other; none if the
        prompt was returned unchanged.

    Raises:
        InputError: The refined prompt does not begin with the user's own words and a comma.
    """
    if refined_prompt == user_prompt:
        return []
    regions, refined = split_regions(user_prompt), split_regions(refined_prompt)
    if len(regions[0]) > 1 and [*map(str.strip, regions[1])] == [*map(str.strip, refined[1])]:
        pairs = zip(regions[0], refined[0], strict=True)
        return [modifier for pair in pairs for modifier in modifiers_added(*pair)]
    beginning = prefix(user_prompt)
    if not refined_prompt.startswith(beginning):
        raise InputError(f"refined_prompt: expected text that begins with {beginning!r}, got {refined_prompt!r}")
    return [modifier.strip() for modifier in refined_prompt[len(beginning) :].split(",") if modifier.strip()]
