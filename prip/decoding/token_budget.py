"""Which of the prompt decoder's tokens fit a token budget that another tokenizer counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .token_table import NEVER_FITS, TokenTable, normal_bytes

EXACT_BELOW = 12
"""Free budget below which the cost of continuing a word is counted exactly, not bounded by its bytes."""
ENOUGH = 4 * EXACT_BELOW
"""Free budget above which masks no longer change."""


class TokenBudget:
    """Cached token counts and masks.

    A chunk is the text since its last space; the counting tokenizer reads it apart from the text before.
    """

    def __init__(self, table: TokenTable, count_tokens: Callable[[str], int]) -> None:
        """`count_tokens` must be additive over parts that a space separates."""
        self._table = table
        self._count_tokens = count_tokens
        self._counts: dict[str, int] = {}
        self._growths: dict[str, np.ndarray] = {}
        self._inside: dict[tuple[int, int], np.ndarray] = {}
        self._starts: dict[int, np.ndarray] = {}

    def count(self, chunk: str) -> int:
        """Return the number of tokens of a chunk."""
        if not chunk:
            return 0
        if chunk not in self._counts:
            if len(self._counts) >= 1 << 16:
                self._counts.clear()
            self._counts[chunk] = self._count_tokens(chunk)
        return self._counts[chunk]

    def starting(self, free: int) -> np.ndarray:
        """Return the mask of tokens that begin a modifier within `free` tokens, bool `(vocabulary,)`."""
        free = min(free, ENOUGH)
        if free not in self._starts:
            self._starts[free] = self._table.starts & (self._table.cost <= free)
        return self._starts[free]

    def going_on(self, chunk: str, free: int) -> np.ndarray:
        """Return the mask of tokens that continue a chunk within `free` more tokens, bool `(vocabulary,)`.

        It is exact if little is free, and else uses an upper bound on the cost of continuing the last word.
        """
        table = self._table
        bytes_free = free + self.count(chunk) - normal_bytes(chunk) - 1
        if bytes_free >= EXACT_BELOW:
            key = (min(free, ENOUGH), min(bytes_free, ENOUGH))
            if key not in self._inside:
                self._inside[key] = (table.cost <= key[0]) | (table.bytes <= key[1])
            return self._inside[key]
        mask = (table.cost <= free) | (table.bytes <= bytes_free)
        doubtful = np.flatnonzero(table.continues & ~mask)
        mask[doubtful] = self._growth(chunk, doubtful) <= free
        return mask

    def _growth(self, chunk: str, tokens: np.ndarray) -> np.ndarray:
        """Return how much each of `tokens` adds to the count of a chunk that it follows; cached."""
        if chunk not in self._growths:
            if len(self._growths) >= 1024:
                self._growths.clear()
            self._growths[chunk] = np.full(self._table.size, NEVER_FITS, dtype=np.int32)
        growth = self._growths[chunk]
        own = self.count(chunk)
        for token in tokens[growth[tokens] == NEVER_FITS]:
            growth[token] = self._count_tokens(chunk + self._table.texts[token]) - own
        return growth[tokens]
