"""Terms of a table in a text: whole words, the longest of those that begin together, without the negated ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from .words import words_of

NEGATIONS = frozenset(("no", "not", "without", "never", "non"))
ARTICLES = frozenset(("a", "an", "any", "the"))


class TermTable:
    """A set of terms that texts are searched for; case, hyphens and other marks do not matter."""

    def __init__(self, terms: Iterable[str]) -> None:
        """terms: in lower case with single spaces."""
        by_first_word: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for term in terms:
            words = tuple(term.split())
            by_first_word[words[0]].append(words)
        self._by_first_word = {first: sorted(terms, key=len, reverse=True) for first, terms in by_first_word.items()}

    def find(self, text: str) -> list[str]:
        """Return the terms that a text names, from left to right; negated ones ("not a photo") do not count."""
        words = tuple(words_of(text))
        terms: list[str] = []
        index = 0
        while index < len(words):
            for term in self._by_first_word.get(words[index], ()):
                if words[index : index + len(term)] == term:
                    if not is_negated(words, index):
                        terms.append(" ".join(term))
                    index += len(term)
                    break
            else:
                index += 1
        return terms


def is_negated(words: Sequence[str], index: int) -> bool:
    """Return whether a negation stands before the word at `index`, with at most an article between them."""
    before = words[max(index - 2, 0) : index]
    if before and before[-1] in ARTICLES:
        before = before[:-1]
    return bool(before) and before[-1] in NEGATIONS
