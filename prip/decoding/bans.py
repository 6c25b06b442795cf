"""Terms that may not come about in what is added, as masks over D's vocabulary.

`TermsAnywhere` are a user's banned terms, in any casing and also inside of words. `TermsAtWords` come about at the
start of a word only: "ink" bans neither "pink" nor "drink", but "inky".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np

from ..control.artists import artist_beginnings, artist_names
from ..control.attributes import Value, kept_and_banned, together
from ..control.faults import unwanted_faults
from ..text.words import spaced_words
from .token_table import TokenTable

SHORTEST_HEAD = 3
"""Letters below which the first token of a term does not stand for the term: many words begin so."""


class TermsAnywhere:
    """Terms that come about wherever their characters stand, those of the user prompt included."""

    def __init__(self, table: TokenTable, terms: tuple[str, ...]) -> None:
        """`terms` as options.normal_terms gives them."""
        self.terms = terms
        self._table = table
        self._holding = np.zeros(table.size, dtype=bool)
        self.beginnings = np.ones(table.size, dtype=bool)
        """bool (vocabulary,): False for tokens with which a term begins"""
        for term in terms:
            self._holding[table.containing(term)] = True
            self.beginnings[table.first_tokens(term)] = False

    def take_off(self, text: str, mask: np.ndarray) -> None:
        """Take the tokens off a mask that hold a term or complete one that `text` (lower-case) has begun."""
        if not self.terms:
            return
        mask[self._holding] = False
        for term in self.terms:
            for begun in range(1, len(term)):
                if text.endswith(term[:begun]):
                    mask[self._table.beginning_with(term[begun:])] = False


class WordIndex:
    """Which tokens hold given words, with all that is neither letter nor digit read as one space; terms are looked up
    once."""

    def __init__(self, table: TokenTable) -> None:
        self.table = table
        spaced = [(spaced_words(text), token) for token, text in enumerate(table.lower) if token != table.separator]
        self._beginning = sorted((text, token) for text, token in spaced if text)
        self._holding = sorted(
            (text[place:], token) for text, token in spaced for place in range(len(text)) if text[place] == " "
        )
        self._whole: dict[str, np.ndarray] = {}
        self._heads: dict[str, np.ndarray] = {}
        self._begun: dict[str, frozenset[str]] = {}

    def beginning(self, text: str) -> list[int]:
        """Return the tokens that begin with `text`."""
        return _with_prefix(self._beginning, text)

    def whole(self, term: str) -> np.ndarray:
        """Return the tokens in which a term stands whole at the start of a word."""
        if term not in self._whole:
            tokens = _with_prefix(self._holding, " " + term)
            tokens += self.table.whole_words(term.strip()) if term.endswith(" ") else []
            self._whole[term] = np.array(tokens, dtype=np.int64)
        return self._whole[term]

    def heads(self, term: str) -> np.ndarray:
        """Return the tokens with which a term begins, but those too short to stand for it."""
        if term not in self._heads:
            tokens = self.table.first_tokens(term)
            says_enough = [len(self.table.texts[token].strip()) >= SHORTEST_HEAD for token in tokens]
            self._heads[term] = tokens[np.array(says_enough, dtype=bool)]
        return self._heads[term]

    def begun(self, term: str) -> frozenset[str]:
        """Return what of a term, behind a space, a text may have begun with."""
        if term not in self._begun:
            self._begun[term] = frozenset(f" {term}"[:end] for end in range(1, len(term) + 1))
        return self._begun[term]


def _with_prefix(rows: list[tuple[str, int]], prefix: str) -> list[int]:
    place = bisect_left(rows, (prefix, -1))
    tokens = []
    while place < len(rows) and rows[place][0].startswith(prefix):
        tokens.append(rows[place][1])
        place += 1
    return tokens


def _joined(tokens: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *tokens])


class TermsAtWords:
    """Terms that come about at the start of a word of a modifier; a separator forgets what was begun.

    Terms are lower-case words with single spaces. One that ends in a space is a whole word, the others may go on.
    """

    def __init__(
        self, index: WordIndex, terms: Iterable[str], heads: Iterable[str] = (), excused: Iterable[str] = ()
    ) -> None:
        """No modifier begins with the first token of one of `heads`, unless one of `excused` begins with it, too.

        What goes on to a banned term excuses nothing: "painted" would leave half of "painted on paper".
        """
        self._index = index
        self._terms = tuple(terms)
        self._begun = frozenset[str]().union(*map(index.begun, self._terms))
        self._most_words = max((f" {term}".count(" ") for term in self._terms), default=0)
        self._completing: dict[str, np.ndarray] = {}
        self.inside = np.ones(index.table.size, dtype=bool)
        """bool (vocabulary,): False for tokens that hold a whole term"""
        self.inside[_joined(map(index.whole, self._terms))] = False
        self.beginnings = self.inside.copy()
        """bool (vocabulary,): False also for tokens with which no modifier begins"""
        safe = _joined(index.heads(term) for term in excused if f" {term} " not in self._begun)
        self.beginnings[np.setdiff1d(_joined(map(index.heads, heads)), safe)] = False

    def take_off(self, modifier: str, mask: np.ndarray) -> None:
        """Take the tokens off a mask that hold a term or complete one that the modifier so far has begun."""
        np.logical_and(mask, self.inside, out=mask)
        text = spaced_words(modifier)
        place = len(text)
        for _ in range(self._most_words + 1):
            place = text.rfind(" ", 0, place)
            if place < 0:
                return
            if text[place:] in self._begun:
                mask[self._completed_by(text[place:])] = False

    def _completed_by(self, begun: str) -> np.ndarray:
        """Return the tokens that complete one of the terms that begin so; cached."""
        if begun not in self._completing:
            tokens: set[int] = set()
            for term in (" " + term for term in self._terms):
                if term.startswith(begun) and term != begun:
                    rest = term[len(begun) :]
                    tokens.update(self._index.beginning(rest))
                    if begun.endswith(" "):
                        tokens.update(self._index.beginning(" " + rest))
            self._completing[begun] = np.array(sorted(tokens), dtype=np.int64)
        return self._completing[begun]


class RowBans:
    """What may not come about behind each user prompt; each set of terms is made into masks once."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._index: WordIndex | None = None
        self._made: dict[object, TermsAtWords] = {}

    def standing(self, user_prompt: str, no_artists: bool, allow_faults: bool) -> tuple[TermsAtWords, ...]:
        """Return the bans that hold from a prompt's first modifier to its last."""
        bans = []
        if no_artists:
            names = artist_names()
            bans.append(self._terms("artists", (*artist_beginnings(), *names), names))
        if not allow_faults:
            terms = unwanted_faults(user_prompt)
            bans.append(self._terms(terms, terms))
        return tuple(bans)

    def other_values(self, named: Iterable[frozenset[Value]]) -> tuple[TermsAtWords, ...]:
        """Return the ban of all other values of the attributes that terms name: none where they name nothing."""
        values = together(named)
        if not values:
            return ()
        if values not in self._made:
            kept, others = kept_and_banned(values)
            return (self._terms(values, others, others, kept),)
        return (self._made[values],)

    def _terms(
        self, key: object, terms: Iterable[str], heads: Iterable[str] = (), excused: Iterable[str] = ()
    ) -> TermsAtWords:
        if key not in self._made:
            if self._index is None:
                self._index = WordIndex(self._table)
            if len(self._made) >= 4096:
                self._made.clear()
            self._made[key] = TermsAtWords(self._index, terms, heads, excused)
        return self._made[key]
