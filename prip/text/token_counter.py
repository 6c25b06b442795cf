"""The token budget by a generator's own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..protocols import CountsTokens


class TokenCounter:
    """Counts tokens in a way that the constraints can add up: a text has as many as its parts between spaces together.

    A tokenizer that sets the space before a word apart, or spells a word otherwise behind one, is counted at its worse
    spelling: never too low, for tokenizers that join no two words (byte-level BPE, SentencePiece's unigrams, CLIP's).
    """

    def __init__(self, count_tokens: Callable[[str], int], limit: int) -> None:
        """count_tokens: of a whole text. limit: tokens that are read. Raises InputError for a limit below 1."""
        if limit < 1:
            raise InputError(f"limit: wanted at least 1 token, got {limit}")
        self.limit = limit
        self._count_tokens = count_tokens
        self._count_part = lru_cache(maxsize=1 << 16)(self._worse)

    def __reduce__(self) -> Any:
        """Copied and pickled without what has been counted so far."""
        return TokenCounter, (self._count_tokens, self.limit)

    @classmethod
    def of(cls, generator: CountsTokens) -> TokenCounter:
        """Returns the counter of a generator, or of what reads prompts like one, limited to what it reads."""
        return cls(generator.count_tokens, generator.token_limit)

    def __call__(self, text: str) -> int:
        """Returns how many tokens `text` takes at most."""
        return sum(map(self._count_part, text.split()))

    def _worse(self, part: str) -> int:
        return max(self._count_tokens(part), self._count_tokens(" " + part))
