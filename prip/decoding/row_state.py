"""Row: the state of one prompt while it is decoded, and what may no longer be added to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..control.attributes import Value
from .bans import TermsAnywhere, TermsAtWords


class Position(NamedTuple):
    """The position of a row."""

    text: str
    """Prefix and added text, in lower case."""
    chunk: str
    """The text since its last space, in its own case."""
    count_before: int
    """Tokens of the text before `chunk`."""
    steps_left: int


@dataclass(eq=False)
class Row:
    """One prompt during decoding: what Constraints reads and changes."""

    position: Position
    start: Position
    """Start of the current modifier."""
    token_budget: int
    banned: TermsAnywhere
    """Terms banned everywhere; shared by the rows of a batch."""
    standing: tuple[TermsAtWords, ...]
    """Other bans that hold from the first token to the last."""
    named: tuple[frozenset[Value], ...] | None
    """Attribute values named by each term of the text so far; None if they need not agree."""
    others: tuple[TermsAtWords, ...]
    """Bans on the other values of these attributes."""
    unbanned: np.ndarray
    """bool `(vocabulary,)`: False for tokens that begin a banned term."""
    unused: np.ndarray
    """bool `(vocabulary,)`: False for tokens that begin a used word or a dropped modifier."""
    used: set[str] = field(default_factory=set)
    """Words, in lower case, that may not begin a modifier."""
    added: list[int] = field(default_factory=list)
    """Tokens of the current modifier so far."""
    first: bool = True
    """Whether the current modifier is the first."""
    dropped: list[int] = field(default_factory=list)
    """First tokens of the modifiers that were dropped at `start`."""
    by_mask: bool = False
    """Whether the decoder may mean only what is allowed, since no first modifier could be finished as it was meant."""
    masks: list[Tensor] = field(default_factory=list)
    """Masks under which the tokens so far were drawn, from `pack_bits`; `decode` records them without
    `whole_modifiers`."""
    full: bool = False
    """Whether no modifier fits, so that the row gets no tokens."""
    done: bool = False
    """Whether the row has ended or never began."""

    @property
    def modifier(self) -> str:
        """Text of the current modifier so far, in lower case."""
        return self.position.text[len(self.start.text) :]

    @property
    def at_separator(self) -> bool:
        """Whether the next token begins a modifier after the first; a row that ends here drops its last separator."""
        return not (self.first or self.added or self.done)

    def restart(self) -> None:
        """Drop the current modifier: return to its start."""
        self.dropped.append(self.added[0])
        self.unused[self.added[0]] = False
        self.position = self.start
        self.added.clear()

    def begin_modifier(self) -> None:
        """Begin the next modifier at the current position."""
        self.start, self.first, self.by_mask = self.position, False, False
        self.added.clear()
        self.dropped.clear()
