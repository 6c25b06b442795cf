"""Series: prompts of one user's attempts at one idea, which must never be on both sides of a split.

Users repeat a prompt with small changes. Real prompt files name no users, so a series is found by what its prompts
share: their beginning, or a long tail of modifiers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence

from ..text.words import words_of

_FIRST_WORDS = 5
_LAST_SEGMENTS = 3
_LEAST_TAIL = 25


def series_of(prompts: Sequence[str], same: Sequence[Hashable] = ()) -> list[str]:
    """Return the series of each prompt, named by its first prompt.

    Two prompts are of one series if they share the first five words before a comma, all words after the first comma,
    or the last three segments between commas (tails of at least 25 characters), directly or through other prompts.

    Args:
        prompts: The prompts.
        same: A further key of each prompt; prompts with equal keys are of one series as well. Empty for none.
    """
    parents = list(range(len(prompts)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first_with: dict[Hashable, int] = {}
    for index, prompt in enumerate(prompts):
        for key in (*_keys(prompt), *(("same", key) for key in same[index : index + 1])):
            other = first_with.setdefault(key, index)
            low, high = sorted((root(index), root(other)))
            parents[high] = low
    return [prompts[root(index)] for index in range(len(prompts))]


def position_of(series: str, seed: int = 0) -> float:
    """Return where a series falls in [0, 1), the same in every file and order; splits are ranges of it."""
    digest = hashlib.sha256(f"{seed}\0{series}".encode()).digest()
    return int.from_bytes(digest[:8], "little") / 2**64


def _keys(prompt: str) -> Iterator[Hashable]:
    """Yield what prompts of one series share."""
    segments = [" ".join(words_of(segment)) for segment in prompt.split(",")]
    yield "start", tuple(segments[0].split()[:_FIRST_WORDS])
    for kind, tail in (
        ("tail", segments[1:]),
        ("end", segments[-_LAST_SEGMENTS:] if len(segments) > _LAST_SEGMENTS else []),
    ):
        text = ", ".join(tail)
        if len(text) >= _LEAST_TAIL:
            yield kind, text
