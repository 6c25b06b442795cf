"""Masks near the token budget of a large vocabulary: never too wide, exact for candidates, and few counts."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tiny_parts import options_with

from prip.decoding.constraints import Constraints
from prip.decoding.row_state import Row
from prip.decoding.token_budget import COUNTED_TOKENS
from prip.text.clip_tokens import count_clip_tokens
from prip.training.real_vocabulary import real_vocabulary

PROMPT = "a cat"


class Counter:
    """Counts CLIP's tokens, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> int:
        self.calls += 1
        return count_clip_tokens(text)


@pytest.fixture(scope="module")
def constraints() -> Constraints:
    return Constraints(real_vocabulary(6000), Counter())


def tight_row(constraints: Constraints, seed: int, budget: int = 24) -> Row:
    """Lead a row through gibberish until its mask depends on candidates."""
    (row,) = constraints.begin([PROMPT], options_with(token_budget=budget))
    source = random.Random(seed)
    while not constraints.tight(row):
        tokens = constraints.allowed([row])[0].nonzero().flatten().tolist()
        tokens = [token for token in tokens if token not in (constraints.table.eos, constraints.table.separator)]
        constraints.advance([row], [source.choice(tokens)])
    return row


def fits(constraints: Constraints, row: Row, token: int) -> bool:
    """Whether the whole text with a token is within the budget, counted at once."""
    added = "".join(constraints.table.texts[number] for number in row.added)
    return count_clip_tokens(f"{PROMPT},{added}{constraints.table.texts[token]}") <= row.token_budget


@pytest.mark.parametrize("seed", range(4))
def test_candidates_are_allowed_exactly_where_they_fit(constraints: Constraints, seed: int) -> None:
    row = tight_row(constraints, seed)
    assert row.first, "the text is the prompt and one modifier"
    grammar = constraints.grammar(row) & torch.from_numpy(constraints.table.continues)
    candidates = random.Random(seed).sample(grammar.nonzero().flatten().tolist(), 200)
    allowed = constraints.allowed([row], [candidates])[0]
    expected = [fits(constraints, row, token) for token in candidates]
    assert allowed[candidates].tolist() == expected
    assert len(set(expected)) == 2 or all(expected)


@pytest.mark.parametrize("seed", range(4))
def test_without_candidates_a_mask_is_only_narrower(constraints: Constraints, seed: int) -> None:
    row = tight_row(constraints, seed)
    everything = list(range(constraints.table.size))
    narrow, whole = constraints.allowed([row])[0], constraints.allowed([row], [everything])[0]
    assert not (narrow & ~whole).any()
    assert all(fits(constraints, row, token) for token in narrow.nonzero().flatten().tolist() if token > 256)
    again = constraints.allowed([row], [[-1, -1]])[0]
    assert again.equal(narrow), "-1 is no candidate"


def test_a_small_vocabulary_is_counted_whole(tiny_processor) -> None:
    small = Constraints(tiny_processor.decoder_tokenizer)
    assert np.count_nonzero(small.table.continues) <= COUNTED_TOKENS
    rows = small.begin([PROMPT], options_with(token_budget=6))
    small.advance(rows, small.table.tokenizer.encode(" golden", add_special_tokens=False)[:1])
    assert not small.tight(rows[0])
    everything = list(range(small.table.size))
    assert small.allowed(rows).equal(small.allowed(rows, [everything]))


def test_a_mask_counts_no_more_than_its_candidates(constraints: Constraints) -> None:
    """Besides the text itself and the text with a comma; it used to count each token that could continue the word."""
    row = tight_row(constraints, 11)
    counter = constraints._count_tokens
    assert isinstance(counter, Counter)
    candidates = np.flatnonzero(constraints.table.continues)[-32:].tolist()
    before = counter.calls
    constraints.allowed([row], [candidates])
    assert counter.calls - before <= len(candidates) + 2
    assert np.count_nonzero(constraints.table.continues) > COUNTED_TOKENS


def test_actions_replay_under_masks_that_allow_them(constraints: Constraints) -> None:
    row = tight_row(constraints, 5)
    grammar = (constraints.grammar(row) & torch.from_numpy(constraints.table.continues)).nonzero().flatten().tolist()
    narrow = constraints.allowed([row])[0]
    token = next(token for token in grammar if not narrow[token] and fits(constraints, row, token))
    actions = [*row.added, token, constraints.table.eos]
    masks = constraints.replay([PROMPT], [actions], options_with(token_budget=24))
    assert masks.gather(2, torch.tensor([actions]).unsqueeze(-1)).all()
