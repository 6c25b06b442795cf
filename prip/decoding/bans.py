"""Banned terms as boolean masks over the prompt decoder's vocabulary.

`TermsAnywhere` are a user's banned terms, in any letter case and also inside words. `TermsAtWords` match at the start
of a word only: "ink" bans "inky", but neither "pink" nor "drink".
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..control.artists import artist_beginnings, artist_names
from ..control.attributes import (
    Value,
    attributes_of_choices,
    kept_and_banned,
    refused_terms,
    terms_of,
    together,
)
from ..control.faults import unwanted_faults
from ..text.words import spaced_words
from .token_table import TokenTable, with_prefix

SHORTEST_HEAD = 3
"""Letters that the first token of a term needs to represent it: too many words begin with fewer."""


class TermsAnywhere:
    """Terms that match anywhere, across the user prompt and what is added."""

    def __init__(self, table: TokenTable, terms: tuple[str, ...]) -> None:
        """Build the masks of terms from `options.normal_terms`."""
        self.terms = terms
        self._table = table
        self._holding = np.zeros(table.size, dtype=bool)
        self.beginnings = np.ones(table.size, dtype=bool)
        """bool `(vocabulary,)`: False for tokens that begin a term."""
        for term in terms:
            self._holding[table.containing(term)] = True
            self.beginnings[table.first_tokens(term)] = False

    def take_off(self, text: str, mask: np.ndarray) -> None:
        """Clear a mask at tokens that contain a term, or complete one begun by `text` (lower case)."""
        if not self.terms:
            return
        mask[self._holding] = False
        for term in self.terms:
            for begun in range(1, len(term)):
                if text.endswith(term[:begun]):
                    mask[self._table.beginning_with(term[begun:])] = False


class WordIndex:
    """Looks up tokens by words, with all but letters and digits read as one space; each term is looked up once."""

    def __init__(self, table: TokenTable) -> None:
        self.table = table
        spaced = [(spaced_words(text), token) for token, text in enumerate(table.lower) if token != table.separator]
        self._beginning = sorted((text, token) for text, token in spaced if text)
        self._holding = sorted(
            (text[index:], token) for text, token in spaced for index in range(len(text)) if text[index] == " "
        )
        self._whole: dict[str, np.ndarray] = {}
        self._heads: dict[str, np.ndarray] = {}
        self._begun: dict[str, frozenset[str]] = {}

    def beginning(self, text: str) -> list[int]:
        """Return the tokens that begin with `text`."""
        return with_prefix(self._beginning, text)

    def whole(self, term: str) -> np.ndarray:
        """Return the tokens that contain a whole term at the start of a word."""
        if term not in self._whole:
            tokens = with_prefix(self._holding, " " + term)
            tokens += self.table.whole_words(term.strip()) if term.endswith(" ") else []
            self._whole[term] = np.array(tokens, dtype=np.int64)
        return self._whole[term]

    def heads(self, term: str) -> np.ndarray:
        """Return the tokens that begin a term, without those too short to represent it."""
        if term not in self._heads:
            tokens = self.table.first_tokens(term)
            says_enough = [len(self.table.texts[token].strip()) >= SHORTEST_HEAD for token in tokens]
            self._heads[term] = tokens[np.array(says_enough, dtype=bool)]
        return self._heads[term]

    def begun(self, term: str) -> frozenset[str]:
        """Return each beginning of a term after a space."""
        if term not in self._begun:
            self._begun[term] = frozenset(f" {term}"[:end] for end in range(1, len(term) + 1))
        return self._begun[term]


def _joined(tokens: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *tokens])


class TermsAtWords:
    """Terms that match at the start of a word of one modifier, never across a separator.

    Terms are in lower case with single spaces. One that ends in a space is a whole word; others are prefixes.
    """

    def __init__(
        self, index: WordIndex, terms: Iterable[str], heads: Iterable[str] = (), excused: Iterable[str] = ()
    ) -> None:
        """Build the masks.

        Args:
            index: Lookup of tokens by words.
            terms: Terms to ban.
            heads: Terms with whose first token no modifier begins.
            excused: Terms that may begin with such a token anyway, unless they are the beginning of a banned term:
                "painted" would leave half of "painted on paper".
        """
        self._index = index
        self._terms = tuple(terms)
        self._begun = frozenset[str]().union(*map(index.begun, self._terms))
        self._most_words = max((f" {term}".count(" ") for term in self._terms), default=0)
        self._completing: dict[str, np.ndarray] = {}
        self.inside = np.ones(index.table.size, dtype=bool)
        """bool `(vocabulary,)`: False for tokens that contain a whole term."""
        self.inside[_joined(map(index.whole, self._terms))] = False
        self.beginnings = self.inside.copy()
        """bool `(vocabulary,)`: False also for tokens that may not begin a modifier."""
        safe = _joined(index.heads(term) for term in excused if f" {term} " not in self._begun)
        self.beginnings[np.setdiff1d(_joined(map(index.heads, heads)), safe)] = False

    def take_off(self, modifier: str, mask: np.ndarray) -> None:
        """Clear a mask at tokens that contain a term, or complete one begun by the modifier so far."""
        np.logical_and(mask, self.inside, out=mask)
        text = spaced_words(modifier)
        start = len(text)
        for _ in range(self._most_words + 1):
            start = text.rfind(" ", 0, start)
            if start < 0:
                return
            if text[start:] in self._begun:
                mask[self._completed_by(text[start:])] = False

    def _completed_by(self, begun: str) -> np.ndarray:
        """Return the tokens that complete a term with this beginning; cached."""
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
    """The bans of each user prompt; the masks of each set of terms are built once."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._index: WordIndex | None = None
        self._bans: dict[object, TermsAtWords] = {}

    def standing(
        self,
        user_prompt: str,
        *,
        no_artists: bool,
        allow_faults: bool,
        keep_attributes: bool,
        choices: tuple[str, ...] = (),
    ) -> tuple[TermsAtWords, ...]:
        """Return the bans that hold for all modifiers of a prompt; `choices` are texts that may be drawn in it."""
        bans = []
        if keep_attributes and (open_attributes := attributes_of_choices(choices)):
            open_terms = terms_of(open_attributes)
            bans.append(self._terms(("choices", open_attributes), open_terms, open_terms))
        if keep_attributes and (refused := refused_terms(user_prompt)):
            bans.append(self._terms(("refused", refused), refused, refused))
        if no_artists:
            names = artist_names()
            bans.append(self._terms("artists", (*artist_beginnings(), *names), names))
        if not allow_faults:
            terms = unwanted_faults(user_prompt)
            bans.append(self._terms(terms, terms))
        return tuple(bans)

    def other_values(self, named: Iterable[frozenset[Value]]) -> tuple[TermsAtWords, ...]:
        """Return the ban on all other values of the attributes that terms name; no ban if they name none."""
        values = together(named)
        kept, others = kept_and_banned(values)
        return (self._terms(values, others, others, kept),) if values else ()

    def _terms(
        self, key: object, terms: Iterable[str], heads: Iterable[str] = (), excused: Iterable[str] = ()
    ) -> TermsAtWords:
        if key not in self._bans:
            if self._index is None:
                self._index = WordIndex(self._table)
            if len(self._bans) >= 4096:
                self._bans.clear()
            self._bans[key] = TermsAtWords(self._index, terms, heads, excused)
        return self._bans[key]
