"""How far one prompt has come on its way to a system prompt, and what may no longer be added to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..control.attributes import Value
from .bans import TermsAnywhere, TermsAtWords


class Place(NamedTuple):
    """How far a row has come."""

    text: str
    """the prefix and what was added, lower-case"""
    chunk: str
    """the text since its last space, in its own case"""
    count_before: int
    """tokens of the text before `chunk`"""
    steps_left: int


@dataclass(eq=False)
class Row:
    """One prompt on its way: what Constraints reads and changes."""

    place: Place
    start: Place
    """where the present modifier begins"""
    token_budget: int
    banned: TermsAnywhere
    """what may come about nowhere; rows of a batch share it"""
    standing: tuple[TermsAtWords, ...]
    """what else may not come about from the first token to the last"""
    named: tuple[frozenset[Value], ...] | None
    """the values of attributes that each term of the text so far names; None where they need not agree"""
    others: tuple[TermsAtWords, ...]
    """the terms of the other values of these attributes"""
    unbanned: np.ndarray
    """bool (vocabulary,): False for tokens that begin a banned term"""
    unused: np.ndarray
    """bool (vocabulary,): False for tokens that begin a word used before, or a modifier that was dropped"""
    used: set[str] = field(default_factory=set)
    """the words, lower-case, with which no modifier may begin"""
    added: list[int] = field(default_factory=list)
    """the tokens of the present modifier so far"""
    first: bool = True
    """whether the present modifier is the first"""
    dropped: list[int] = field(default_factory=list)
    """the first tokens of the modifiers that were dropped at `start`"""
    by_mask: bool = False
    """D may mean only what is allowed: none of the first modifiers tried could be finished as it was meant"""
    full: bool = False
    """there is no room for a modifier: it gets no tokens at all"""
    done: bool = False
    """it has ended or never began"""

    @property
    def modifier(self) -> str:
        """The text of the present modifier so far, lower-case."""
        return self.place.text[len(self.start.text) :]

    @property
    def at_separator(self) -> bool:
        """Whether the next token begins a modifier that is not the first: who ends here takes the last token back."""
        return not (self.first or self.added or self.done)

    def restart(self) -> None:
        """Go back to the start of the present modifier, which was dropped."""
        self.dropped.append(self.added[0])
        self.unused[self.added[0]] = False
        self.place = self.start
        self.added.clear()

    def begin_modifier(self) -> None:
        """Begin the next modifier at the present place."""
        self.start, self.first, self.by_mask = self.place, False, False
        self.added.clear()
        self.dropped.clear()
