"""TokenCounter: counts the token budget with a generator's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..protocols import CountsTokens


class TokenCounter:
    """Counts tokens additively over parts between spaces, as the constraints need.

    A part is counted with and without a space before it, and the larger count is taken. The sum is never too low for
    tokenizers that join no two words (byte-level BPE, SentencePiece unigrams, CLIP).
    """

    def __init__(self, count_tokens: Callable[[str], int], limit: int) -> None:
        """Count with `count_tokens`, which takes a whole text, up to a limit of at least 1 token."""
        if limit < 1:
            raise InputError(f"limit: expected at least 1 token, got {limit}")
        self.limit = limit
        self._count_tokens = count_tokens
        self._count_part = lru_cache(maxsize=1 << 16)(self._worse)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without the cache."""
        return TokenCounter, (self._count_tokens, self.limit)

    @classmethod
    def of(cls, generator: CountsTokens) -> TokenCounter:
        """Return the counter of a generator, limited to the tokens that it reads."""
        return cls(generator.count_tokens, generator.token_limit)

    def __call__(self, text: str) -> int:
        """Return an upper bound on the number of tokens of a text."""
        parts = text.split()
        count = sum(map(self._count_part, parts))
        has_other_blanks = text.split(" ") != parts  # runs of spaces and line breaks may be tokens of their own
        return max(count, self._count_tokens(text)) if has_other_blanks and parts else count

    def _worse(self, part: str) -> int:
        return max(self._count_tokens(part), self._count_tokens(" " + part))
