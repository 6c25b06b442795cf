"""Which of the prompt decoder's tokens fit a token budget that another tokenizer counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .token_table import TokenTable, normal_bytes

EXACT_BELOW = 12
"""Free budget below which the cost of continuing a word is counted exactly, not bounded by its bytes."""
COUNTED_TOKENS = 1024
"""Tokens that continue a word up to which all of them are counted; of a larger vocabulary, only candidates are."""
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
        self._growths: dict[str, dict[int, int]] = {}
        self._costing: dict[int, np.ndarray] = {}
        self._holding: dict[int, np.ndarray] = {}
        self._counts_all = np.count_nonzero(table.continues) <= COUNTED_TOKENS
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

    def is_tight(self, chunk: str, free: int) -> bool:
        """Return whether `going_on` needs candidates: little is free, and the vocabulary is too large to count."""
        return not self._counts_all and self._bytes_free(chunk, free) < EXACT_BELOW

    def going_on(self, chunk: str, free: int, candidates: Sequence[int] = ()) -> np.ndarray:
        """Return the mask of tokens that continue a chunk within `free` more tokens, bool `(vocabulary,)`.

        If much is free, it uses an upper bound on the cost of continuing the last word. If little is, a token that the
        bound does not admit is counted: each of a small vocabulary, or of a large one the candidates. So no mask admits
        a token that does not fit, and the work does not grow with the vocabulary.
        """
        table, bytes_free = self._table, self._bytes_free(chunk, free)
        mask = self._within(self._costing, table.cost, free) | self._within(self._holding, table.bytes, bytes_free)
        if bytes_free < EXACT_BELOW:
            doubtful = np.flatnonzero(table.continues & ~mask) if self._counts_all else self._doubtful(candidates, mask)
            mask[doubtful] = self._growth(chunk, doubtful) <= free
        return mask

    def _bytes_free(self, chunk: str, free: int) -> int:
        return free + self.count(chunk) - normal_bytes(chunk) - 1

    def _within(self, masks: dict[int, np.ndarray], costs: np.ndarray, most: int) -> np.ndarray:
        most = max(-1, min(most, ENOUGH))
        if most not in masks:
            masks[most] = costs <= most
        return masks[most]

    def _doubtful(self, candidates: Sequence[int], mask: np.ndarray) -> np.ndarray:
        """Return the candidates that continue a word and that a mask does not admit."""
        tokens = np.unique(np.array([token for token in candidates if token >= 0], dtype=np.int64))
        return tokens[self._table.continues[tokens] & ~mask[tokens]]

    def _growth(self, chunk: str, tokens: np.ndarray) -> np.ndarray:
        """Return how much each of `tokens` adds to the count of a chunk that it follows; cached."""
        if chunk not in self._growths:
            if len(self._growths) >= 1024:
                self._growths.clear()
            self._growths[chunk] = {}
        growths, own = self._growths[chunk], self.count(chunk)
        for token in tokens.tolist():
            if token not in growths:
                growths[token] = self._count_tokens(chunk + self._table.texts[token]) - own
        return np.array([growths[token] for token in tokens.tolist()], dtype=np.int64)
