"""Constraints: which tokens the prompt decoder may choose next, so that modifiers fit the budget and nothing repeats.

Sampling and reinforcement learning, which scores sampled tokens again (`replay`), use the same masks. With these alone,
the decoder would finish some modifiers other than it means to: with "hour" banned, "golden" becomes "golden warm".
A second mask of what it may mean, and a way back to the modifier's start (`drop`), prevent that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from ..control.attributes import Value, values_by_term
from ..errors import InputError
from ..options import RefineOptions, check_whole, normal_terms
from ..text.clip_tokens import CLIP_TOKEN_LIMIT, count_clip_tokens
from ..text.prompts import own_words
from ..text.webui_syntax import read_prompt, text_read_by_webui, with_weights_as_refusals
from ..text.words import words_of
from .bans import RowBans, TermsAnywhere, TermsAtWords
from .row_state import Position, Row
from .token_budget import TokenBudget
from .token_table import SEPARATOR, TokenTable

TRIES = 4
"""Modifiers to drop at one position before the text ends there, or the first one is finished by the mask alone."""


class Constraints:
    """The rules of a system prompt, as masks over the prompt decoder's vocabulary.

    1. A separator is exactly the token ","; special tokens, line breaks and parts of characters are never allowed.
    2. A modifier begins with a space and a letter or digit; it has at least one token.
    3. It does not begin with a word of the user prompt or of what was added before; no word directly follows itself.
    4. No banned term occurs in what is added, in any letter case, and no modifier begins like one. No word begins
       another value of an attribute that the text so far names, a value that the user prompt refuses, an artist's name,
       or a fault.
    5. The text never exceeds the token budget, nor the tokens added `max_new_tokens`; a modifier after the first is
       begun only when `modifier_tokens` are free.
    6. The end is allowed after one modifier, and is the only choice when nothing else fits.
    """

    def __init__(
        self,
        decoder_tokenizer: PreTrainedTokenizerFast,
        count_tokens: Callable[[str], int] = count_clip_tokens,
        token_limit: int = CLIP_TOKEN_LIMIT,
        modifier_tokens: int = 4,
        vocabulary_size: int | None = None,
        positions_after: Callable[[str], int] | None = None,
    ) -> None:
        """Build the tables of a vocabulary.

        Args:
            decoder_tokenizer: The prompt decoder's tokenizer.
            count_tokens: Counts the token budget. It must be additive over parts separated by a space, as CLIP's
                count is.
            token_limit: Token budget where the options set none.
            modifier_tokens: Free tokens needed to begin a modifier.
            vocabulary_size: Width of the prompt decoder's logits, if that exceeds its tokenizer's vocabulary.
            positions_after: Returns for how many tokens after a user prompt the prompt decoder has positions; None for
                no limit.

        Raises:
            InputError: The tokenizer cannot write modifiers, or `modifier_tokens` is below 2.
        """
        check_whole("modifier_tokens", modifier_tokens, 2)
        self.token_limit = token_limit
        self.table = TokenTable(decoder_tokenizer, count_tokens, vocabulary_size)
        self.modifier_tokens = modifier_tokens
        self._count_tokens = count_tokens
        self._positions_after = positions_after
        self._budget = TokenBudget(self.table, count_tokens)
        self._row_bans = RowBans(self.table)

    def begin(self, user_prompts: Sequence[str], options: RefineOptions, contexts: Sequence[str] = ()) -> list[Row]:
        """Return the rows of a batch before their first token; those without room for a modifier are `full`.

        Args:
            user_prompts: The prompts, styles included.
            options: Read are token_budget, webui_syntax, max_new_tokens, banned_terms, keep_attributes, no_artists,
                allow_faults.
            contexts: For each prompt a text that what is added must agree with too; empty for none.
        """
        banned = TermsAnywhere(self.table, normal_terms(options.banned_terms))
        rows = []
        for user_prompt, context in zip(user_prompts, contexts or [""] * len(user_prompts), strict=True):
            reading, beside = read_prompt(user_prompt), read_prompt(context)
            words = own_words(reading.text)
            named = values_by_term(words) + values_by_term(beside.text) if options.keep_attributes else None
            texts = [user_prompt, context] if context else [user_prompt]
            standing = self._row_bans.standing(
                ", ".join(own_words(with_weights_as_refusals(text)) for text in texts),
                no_artists=options.no_artists,
                allow_faults=options.allow_faults,
                keep_attributes=options.keep_attributes,
                choices=reading.choices + beside.choices,
            )
            most = options.max_new_tokens
            if self._positions_after is not None:
                most = min(most, self._positions_after(user_prompt))
            read = text_read_by_webui(user_prompt) if options.webui_syntax else user_prompt
            limited = replace(options, max_new_tokens=max(1, most))
            row = self._begin_row(words, own_words(read), limited, banned=banned, standing=standing, named=named)
            for choice in reading.choices if not row.full else ():
                self._use(row, words_of(choice))
            rows.append(row)
        return rows

    def allowed(self, rows: Sequence[Row], candidates: Sequence[Sequence[int]] = ()) -> torch.Tensor:
        """Return the masks of the next tokens, bool `(rows, vocabulary)` on the CPU, True = allowed.

        A row that is done allows the end token alone.

        Args:
            rows: The rows.
            candidates: For each row the tokens that the prompt decoder may well choose; -1 stands for none. They decide
                for rows that are `tight`: inside a word and near the token budget, counting each token of a large
                vocabulary would take seconds, so no others are allowed there than candidates that fit and those that
                fit whatever the word. A small vocabulary needs no candidates.
        """
        masks = np.empty((len(rows), self.table.size), dtype=bool)
        for number, (row, mask) in enumerate(zip(rows, masks, strict=True)):
            if row.done:
                mask[:] = False
                mask[self.table.eos] = True
            elif row.added:
                self._grammar(row, mask)
                self._body(row, mask, candidates[number] if candidates else ())
            else:
                self._start(row, mask)
        return torch.from_numpy(masks)

    def meant(self, rows: Sequence[Row], candidates: Sequence[Sequence[int]] = ()) -> torch.Tensor:
        """Return the masks of what the prompt decoder may mean, bool `(rows, vocabulary)`.

        It may mean what is allowed, and also what is banned or has no room, except at the start of the first modifier;
        inside a modifier also a separator. A separator that is meant but not allowed ends the text. For any other such
        token the modifier cannot be finished as it was meant: see `drop`. If no beginning that is meant is allowed, the
        row ends.

        `candidates` are as in `allowed`, for rows that mean only what is allowed (`Row.by_mask`).
        """
        masks = np.empty((len(rows), self.table.size), dtype=bool)
        for number, (row, mask) in enumerate(zip(rows, masks, strict=True)):
            if row.by_mask or row.done or (row.first and not row.added):
                mask[:] = self.allowed([row], candidates[number : number + 1])[0].numpy()
                mask[self.table.separator] |= bool(row.added)
            elif row.added:
                self._grammar(row, mask)
            else:
                np.logical_and(self.table.starts, row.unused, out=mask)
        return torch.from_numpy(masks)

    def tight(self, row: Row) -> bool:
        """Return whether the mask of a row depends on its candidates."""
        return bool(row.added) and not row.done and self._budget.is_tight(row.position.chunk, self._free(row))

    def grammar(self, row: Row) -> torch.Tensor:
        """Return the mask of what the rules of a modifier alone admit inside it, bool `(vocabulary,)`."""
        mask = np.empty(self.table.size, dtype=bool)
        self._grammar(row, mask)
        return torch.from_numpy(mask)

    def advance(self, rows: Sequence[Row], tokens: Sequence[int]) -> None:
        """Advance each row by its chosen token; rows that are done ignore theirs."""
        for row, token in zip(rows, tokens, strict=True):
            if row.done:
                continue
            if token == self.table.eos:
                row.done = True
                continue
            row.position = self._after(row.position, token)
            if token == self.table.separator:
                self._begin_modifier(row)
            else:
                row.added.append(token)

    def drop(self, row: Row) -> int:
        """Drop a row's current modifier and return to its start.

        The row does not begin a modifier with the same token again. After TRIES dropped modifiers at one position, or
        if no beginning is left, the row is done and its last separator is dropped too. For the first modifier, which
        the text needs, only allowed tokens may be meant from then on.

        Returns:
            How many of the row's last tokens to remove.
        """
        taken_back = len(row.added)
        row.restart()
        mask = np.empty(self.table.size, dtype=bool)
        self._start(row, mask)
        if len(row.dropped) < TRIES and mask.any():
            return taken_back
        if row.at_separator:
            row.done = True
            return taken_back + 1
        row.unused[row.dropped] = True
        row.by_mask = True
        return taken_back

    def replay(
        self, user_prompts: Sequence[str], actions: Sequence[Sequence[int]], options: RefineOptions
    ) -> torch.Tensor:
        """Return the masks of actions whose own masks were not recorded.

        They equal those of sampling, except near the token budget of a large vocabulary. There the masks of sampling
        depend on candidates (see `allowed`), of which only the action is known here, so that fewer tokens are allowed;
        `PromptSampler.sample_under_masks` returns the masks themselves.

        Args:
            user_prompts: The prompts, styles included.
            actions: For each prompt its token ids, end token included, as `decode` returns them.
            options: Those of `begin`.

        Returns:
            bool `(batch, length, vocabulary)`, True = allowed; positions after a row's last action allow every token.

        Raises:
            InputError: An action is not allowed at its position.
        """
        rows = self.begin(user_prompts, options)
        length = max(map(len, actions), default=0)
        masks = torch.ones(len(actions), length, self.table.size, dtype=torch.bool)
        for step in range(length):
            candidates = [own[step : step + 1] for own in actions]
            allowed = self.allowed(rows, candidates)
            for number, (row, own) in enumerate(zip(rows, actions, strict=True)):
                if step < len(own):
                    if row.done or not allowed[number, own[step]]:
                        raise InputError(f"actions[{number}][{step}] = {own[step]} is not allowed at this position")
                    masks[number, step] = allowed[number]
            self.advance(rows, [own[step] if step < len(own) else self.table.eos for own in actions])
        return masks

    def _begin_row(
        self,
        own: str,
        read: str,
        options: RefineOptions,
        *,
        banned: TermsAnywhere,
        standing: tuple[TermsAtWords, ...],
        named: tuple[frozenset[Value], ...] | None,
    ) -> Row:
        """Return a prompt's row: `own` are its words as models read them, `read` is its text as the host does."""
        token_budget = self.token_limit if options.token_budget is None else options.token_budget
        max_new_tokens = options.max_new_tokens
        chunks = (read + SEPARATOR).rpartition(" ")
        position = Position(
            text=own.lower() + SEPARATOR,
            chunk=chunks[2],
            count_before=self._count_tokens(chunks[0]) if chunks[0] else 0,
            steps_left=max_new_tokens,
        )
        row = Row(
            position=position,
            start=position,
            token_budget=token_budget,
            banned=banned,
            standing=standing,
            named=named,
            others=self._row_bans.other_values(named or ()),
            unbanned=banned.beginnings.copy(),
            unused=np.ones(self.table.size, dtype=bool),
        )
        before_comma = position.count_before + self._budget.count(chunks[2][:-1])
        row.full = min(token_budget - before_comma, max_new_tokens) < self.modifier_tokens
        if not row.full:
            for ban in (*row.standing, *row.others):
                row.unbanned &= ban.beginnings
            self._use(row, words_of(own))
            mask = np.empty(self.table.size, dtype=bool)
            self._start(row, mask)
            if not mask.any():  # the prompt has used up every beginning: it may then repeat one of its own words
                row.unused, row.used = np.ones(self.table.size, dtype=bool), set()
                self._start(row, mask)
                row.full = not mask.any()
        row.done = row.full
        return row

    def _use(self, row: Row, words: Sequence[str]) -> None:
        for word in words:
            if word not in row.used:
                row.used.add(word)
                row.unused[self.table.first_tokens(word)] = False

    def _others_behind(self, row: Row) -> tuple[tuple[frozenset[Value], ...] | None, tuple[TermsAtWords, ...]]:
        """Return a row's `named` and `others` after the current modifier."""
        if row.named is None or not (names := values_by_term(row.modifier)):
            return row.named, row.others
        return row.named + names, self._row_bans.other_values(row.named + names)

    def _begin_modifier(self, row: Row) -> None:
        """Begin the next modifier: it repeats no word and agrees with the attributes named so far."""
        self._use(row, words_of(row.modifier))
        row.named, row.others = self._others_behind(row)
        for ban in row.others:
            row.unbanned &= ban.beginnings
        row.begin_modifier()

    def _after(self, position: Position, token: int) -> Position:
        text, chunk, count_before = position.text + self.table.lower[token], position.chunk, position.count_before
        before, space, after = self.table.texts[token].rpartition(" ")
        if space:
            count_before += self._budget.count(chunk) + self._budget.count(before)
            chunk = after
        else:
            chunk += after
        return Position(text, chunk, count_before, position.steps_left - 1)

    def _free(self, row: Row) -> int:
        return row.token_budget - row.position.count_before - self._budget.count(row.position.chunk)

    def _start(self, row: Row, mask: np.ndarray) -> None:
        """Write the mask at the start of a modifier (rules 2 to 5)."""
        np.logical_and(self._budget.starting(self._free(row)), row.unused, out=mask)
        mask &= row.unbanned
        row.banned.take_off(row.position.text, mask)

    def _grammar(self, row: Row, mask: np.ndarray) -> None:
        """Write the mask of what may be meant inside a modifier (rules 1 to 3)."""
        mask[:] = self.table.inside
        last, chunk = self.table.texts[row.added[-1]], row.position.chunk
        word = words_of(last if last.startswith(" ") else chunk)
        if word:
            mask[self.table.whole_words(word[-1])] = False
        if " " not in row.modifier.lstrip() and chunk.isalnum():
            mask[self.table.completing(chunk.lower(), row.used)] = False
        mask[self.table.separator] = True
        mask[self.table.eos] = True

    def _body(self, row: Row, mask: np.ndarray, candidates: Sequence[int]) -> None:
        """Clear a mask inside a modifier where rules 4 to 6 do not allow a token."""
        if row.position.steps_left > 0:
            free = self._free(row)
            may_separate = self._may_separate(row, free)
            mask &= self._budget.going_on(row.position.chunk, free, candidates)
            mask[self.table.separator] = may_separate
            row.banned.take_off(row.position.text, mask)
            for ban in (*row.standing, *row.others):
                ban.take_off(row.modifier, mask)
        else:
            mask[:] = False
        mask[self.table.eos] = True

    def _may_separate(self, row: Row, free: int) -> bool:
        """Return whether a comma may follow: another modifier has room and a token to begin with."""
        if min(free, row.position.steps_left) < self.modifier_tokens:
            return False
        growth = self._budget.count(row.position.chunk + SEPARATOR) - self._budget.count(row.position.chunk)
        mask = self._budget.starting(free - growth) & row.unused & row.unbanned
        for ban in self._others_behind(row)[1]:
            mask &= ban.beginnings
        words = words_of(row.modifier)
        if not row.banned.terms and np.count_nonzero(mask) > 16 * len(words):
            return True
        for word in words:
            mask[self.table.first_tokens(word)] = False
        row.banned.take_off(row.position.text + SEPARATOR, mask)
        return bool(mask.any())
