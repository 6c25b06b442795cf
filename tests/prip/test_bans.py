"""Bans at the starts of words, against a brute-force reading of every token, and in whole texts."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tiny_parts import options_with

from prip.control.artists import artist_names
from prip.control.attributes import attributes, kept_and_banned, named_values, refused_terms
from prip.decoding.bans import TermsAtWords, WordIndex
from prip.decoding.constraints import Constraints
from prip.processing import PripProcessor
from prip.refiner import Refiner
from prip.text.prompts import modifiers_added
from prip.text.words import spaced_words

NAMED = [
    f"a {noun}, {term}"
    for noun, values in zip(("cat", "dog on the beach", "robot"), attributes().values(), strict=False)
    for terms in values.values()
    for term in terms[:2]
]
SAMPLED = {"temperature": 1.0, "max_new_tokens": 40}


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained("prip-mini", device="cpu")


@pytest.fixture(scope="module", params=["tiny", "prip-mini"])
def constraints(request: pytest.FixtureRequest, tiny_processor: PripProcessor, refiner: Refiner) -> Constraints:
    return Constraints(tiny_processor.decoder_tokenizer) if request.param == "tiny" else refiner.sampler.constraints


def comes_about(term: str, modifier: str) -> bool:
    """Whether a term stands at the start of a word of a modifier, which begins with a space."""
    return f" {term}" in spaced_words(modifier)


@pytest.mark.parametrize(
    "modifier",
    [" a", " cl", " close", " close-", " close u", " pin", " i", " golden h", " x close", " water", " by", " b"],
)
def test_masks_are_those_of_a_brute_force_reading(constraints: Constraints, modifier: str) -> None:
    terms = ["close up", "ink", "golden hour", "watercolor", "in the style", "ho"]
    table = constraints.table
    mask = np.ones(table.size, dtype=bool)
    TermsAtWords(WordIndex(table), terms).take_off(modifier, mask)
    for token, text in enumerate(table.texts):
        if text and token != table.separator:
            assert mask[token] == (not any(comes_about(term, modifier + text) for term in terms)), text
    assert mask[table.separator] and mask[table.eos]


def test_a_word_start_is_not_the_inside_of_a_word(constraints: Constraints) -> None:
    table = constraints.table
    ban = TermsAtWords(WordIndex(table), ["ink", "our"])
    for begun, rest, allowed in ((" p", "in", True), (" h", "our", True), (" pin", "k", True), (" in", "k", False)):
        if rest in table.texts:
            mask = np.ones(table.size, dtype=bool)
            ban.take_off(begun, mask)
            assert mask[table.texts.index(rest)] == allowed, begun + rest


def test_a_whole_word_may_be_the_beginning_of_another(constraints: Constraints) -> None:
    table = constraints.table
    mask = np.ones(table.size, dtype=bool)
    ban = TermsAtWords(WordIndex(table), ["by "])
    assert not ban.inside[table.whole_words("by")].any(), "it would be left dangling"
    ban.take_off(" by", mask)
    assert not mask[[token for token, text in enumerate(table.texts) if text.startswith(" ")]].any()
    assert mask[table.texts.index("e")]


def test_beginnings(constraints: Constraints) -> None:
    """No modifier begins as a head does, unless what is excused begins so; two letters say nothing."""
    table = constraints.table
    index = WordIndex(table)
    golden = table.first_tokens("golden hour")
    assert not TermsAtWords(index, ["golden hour"], heads=["golden hour"]).beginnings[golden].any()
    assert TermsAtWords(index, ["golden hour"]).beginnings[golden].all()
    assert TermsAtWords(index, [], heads=["golden hour"], excused=["golden gate"]).beginnings[golden].all()
    heads = ["golden hour"]
    assert not TermsAtWords(index, heads, heads, excused=["golden"]).beginnings[golden].any(), "it goes on to the term"
    assert TermsAtWords(index, [], heads=["zq zq"]).beginnings.all()


def test_named_attributes_are_kept_when_sampling(refiner: Refiner) -> None:
    prompts = [f"{prompt} {number}" for number in range(3) for prompt in NAMED]
    free = refiner.refine(prompts, keep_attributes=False, **SAMPLED)
    kept = refiner.refine(prompts, **SAMPLED)
    broken = 0
    for prompt, text, other in zip(prompts, kept, free, strict=True):
        _, banned = kept_and_banned(named_values(prompt))
        assert banned
        added, others = (spaced_words(" " + " , ".join(modifiers_added(prompt, one))) for one in (text, other))
        assert not [term for term in banned if f" {term}" in added], text
        broken += any(f" {term}" in others for term in banned)
    assert broken > len(prompts) / 4, "the test would see it"


def test_what_a_prompt_refuses_is_not_added_when_sampling(refiner: Refiner) -> None:
    refusals = ("not a painting", "no sunlight", "without watercolor", "anything but a photo", "no moonlight")
    prompts = [f"a cat {number}, {refusal}" for number in range(4) for refusal in refusals]
    free = refiner.refine(prompts, keep_attributes=False, **SAMPLED)
    kept = refiner.refine(prompts, **SAMPLED)
    broken = 0
    for prompt, text, other in zip(prompts, kept, free, strict=True):
        added, others = (spaced_words(" " + " , ".join(modifiers_added(prompt, one))) for one in (text, other))
        assert not [term for term in refused_terms(prompt) if f" {term}" in added], text
        broken += any(f" {term}" in others for term in refused_terms(prompt))
    assert broken > len(prompts) / 4, "the test would see it"


def drawn_towards(constraints: Constraints, prompt: str, wanted: str, source: random.Random, **options) -> str:
    """Return what a walk adds that takes the tokens of `wanted` where it may, one at random where it may not.

    Each modifier is words with single spaces; commas stand between them.
    """
    table = constraints.table
    rows = constraints.begin([prompt], options_with(**options))
    added = ""
    for token in table.tokenizer.encode(wanted, add_special_tokens=False):
        allowed = constraints.allowed(rows)[0]
        chosen = token if allowed[token] else source.choice(allowed.nonzero().flatten().tolist())
        if chosen == table.eos:
            break
        added += table.texts[chosen]
        constraints.advance(rows, [chosen])
    return ",".join(map(spaced_words, added.split(",")))


def test_no_artist_comes_about_though_drawn_towards_one(constraints: Constraints) -> None:
    source = random.Random(0)
    free = 0
    for name in source.sample(artist_names(), 60):
        for wanted in (f" art by {name}", f" a {name} look", f" {name}"):
            added = drawn_towards(constraints, "x", wanted, source, no_artists=True)
            assert f" {name}" not in added and " by " not in added, added
            free += f" {name}" in drawn_towards(constraints, "x", wanted, source)
    assert free > 40, "without the ban they do"


def test_no_other_value_comes_about_though_drawn_towards_it(constraints: Constraints) -> None:
    source = random.Random(0)
    free = 0
    for prompt in NAMED:
        banned = sorted(kept_and_banned(named_values(prompt))[1])
        for term in source.sample(banned, 4):
            for wanted in (f" a {term} look", f" some-{term}", f" {term}"):
                added = drawn_towards(constraints, prompt, wanted, source)
                assert not [one for one in banned if f" {one}" in added], (prompt, added)
                free += f" {term}" in drawn_towards(constraints, prompt, wanted, source, keep_attributes=False)
    assert free > 2 * len(NAMED), "without the ban they do"


@pytest.mark.parametrize("options", [{}, SAMPLED, {**SAMPLED, "top_p": 1.0}], ids=["greedy", "nucleus", "all"])
def test_modifiers_agree_with_one_another(refiner: Refiner, options: dict) -> None:
    prompts = [*NAMED, *(f"a {noun}" for noun in ("cat", "castle", "boat", "robot", "house", "owl", "rocket", "rose"))]

    def at_odds(texts: list[str]) -> int:
        """How many texts hold a modifier that names another value than what stands before it."""
        found = 0
        for prompt, text in zip(prompts, texts, strict=True):
            added = modifiers_added(prompt, text)
            for place, modifier in enumerate(added):
                _, banned = kept_and_banned(named_values(", ".join([prompt, *added[:place]])))
                if any(comes_about(term, " " + modifier) for term in banned):
                    found += 1
                    break
        return found

    assert at_odds(refiner.refine(prompts, **options)) == 0
    assert at_odds(refiner.refine(prompts, keep_attributes=False, **options)) > len(prompts) / 4


def test_what_names_nothing_has_no_bans(constraints: Constraints) -> None:
    rows = constraints.begin(["a cat", "a cat, watercolor"], options_with())
    assert [len(row.others) for row in rows] == [0, 1]
    rows = constraints.begin(["a cat", "a cat, watercolor"], options_with(keep_attributes=False))
    assert [len(row.others) for row in rows] == [0, 0]


def test_replay_has_the_masks_of_the_actions(refiner: Refiner) -> None:
    prompts = [*NAMED[:12], "a cat", "a dog, golden hour, photo"]
    options = options_with(
        temperature=1.0, top_p=1.0, max_new_tokens=40, banned_terms=["8k"], no_artists=True, allow_faults=False
    )
    actions = refiner.sampler.sample(prompts, [(1, 2)] * len(prompts), options)
    replayed = refiner.sampler.constraints.replay(prompts, actions, options)
    rows = refiner.sampler.constraints.begin(prompts, options)
    for step in range(max(map(len, actions))):
        allowed = refiner.sampler.constraints.allowed(rows)
        for row, own in enumerate(actions):
            if step < len(own):
                assert replayed[row, step].equal(allowed[row])
        refiner.sampler.constraints.advance(rows, [own[step] if step < len(own) else 0 for own in actions])
    free = refiner.sampler.constraints.replay(
        prompts, actions, options_with(token_budget=75, max_new_tokens=40, keep_attributes=False)
    )
    assert not torch.equal(free, replayed)


def test_every_beginning_may_be_banned(refiner: Refiner) -> None:
    table = refiner.sampler.constraints.table
    starts = {text.strip().lower() for text, start in zip(table.texts, table.starts, strict=True) if start}
    rows = refiner.sampler.constraints.begin(["a cat"], options_with(banned_terms=sorted(starts)))
    assert rows[0].full
