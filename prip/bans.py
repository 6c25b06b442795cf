"""Terms that may not come about in what is added, as masks over D's vocabulary.

`TermsAnywhere` are a user's banned terms, in any casing and also inside of words. `TermsAtWords` come about at the
start of a word only: "ink" bans neither "pink" nor "drink", but "inky".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np

from .control.artists import artist_beginnings, artist_names
from .control.attributes import kept_and_banned, named_values
from .control.faults import unwanted_faults
from .token_table import TokenTable
from .words import spaced_words

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
    """Which tokens hold given words, with all that is neither letter nor digit read as one space."""

    def __init__(self, table: TokenTable) -> None:
        self.table = table
        spaced = [(spaced_words(text), token) for token, text in enumerate(table.lower) if token != table.separator]
        self._beginning = sorted((text, token) for text, token in spaced if text)
        self._holding = sorted(
            (text[place:], token) for text, token in spaced for place in range(len(text)) if text[place] == " "
        )

    def beginning(self, text: str) -> list[int]:
        """Return the tokens that begin with `text`."""
        return _with_prefix(self._beginning, text)

    def holding(self, text: str) -> list[int]:
        """Return the tokens in which `text`, which begins with a space, stands."""
        return _with_prefix(self._holding, text)


def _with_prefix(rows: list[tuple[str, int]], prefix: str) -> list[int]:
    place = bisect_left(rows, (prefix, -1))
    tokens = []
    while place < len(rows) and rows[place][0].startswith(prefix):
        tokens.append(rows[place][1])
        place += 1
    return tokens


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
        table = index.table
        self._terms = tuple(" " + term for term in terms)
        self._begun = {term[:end] for term in self._terms for end in range(1, len(term))}
        self._most_words = max((term.count(" ") for term in self._terms), default=0)
        self._completing: dict[str, np.ndarray] = {}
        self.inside = np.ones(table.size, dtype=bool)
        """bool (vocabulary,): False for tokens that hold a whole term"""
        for term in self._terms:
            self.inside[index.holding(term)] = False
            if term.endswith(" "):
                self.inside[table.whole_words(term.strip())] = False
        self.beginnings = self.inside.copy()
        """bool (vocabulary,): False also for tokens with which no modifier begins"""
        begun = {token for term in heads for token in table.first_tokens(term) if self._says_enough(token)}
        safe = (term for term in excused if f" {term} " not in self._begun)
        begun.difference_update(token for term in safe for token in table.first_tokens(term))
        self.beginnings[list(begun)] = False

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

    def _says_enough(self, token: int) -> bool:
        return len(self._index.table.texts[token].strip()) >= SHORTEST_HEAD

    def _completed_by(self, begun: str) -> np.ndarray:
        """Return the tokens that complete one of the terms that begin so; cached."""
        if begun not in self._completing:
            tokens: set[int] = set()
            for term in self._terms:
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

    def __call__(
        self, text: str, keep_attributes: bool, no_artists: bool, allow_faults: bool
    ) -> tuple[TermsAtWords, ...]:
        """Return the bans of a prompt that says `text`: none where it names nothing and nothing else is asked for."""
        bans = []
        if keep_attributes and (values := named_values(text)):
            kept, others = kept_and_banned(values)
            bans.append(self._terms(values, others, others, kept))
        if no_artists:
            names = artist_names()
            bans.append(self._terms("artists", (*artist_beginnings(), *names), names))
        if not allow_faults:
            terms = unwanted_faults(text)
            bans.append(self._terms(terms, terms))
        return tuple(bans)

    def _terms(
        self, key: object, terms: Iterable[str], heads: Iterable[str] = (), excused: Iterable[str] = ()
    ) -> TermsAtWords:
        if key not in self._made:
            if self._index is None:
                self._index = WordIndex(self._table)
            if len(self._made) >= 512:
                self._made.clear()
            self._made[key] = TermsAtWords(self._index, terms, heads, excused)
        return self._made[key]
