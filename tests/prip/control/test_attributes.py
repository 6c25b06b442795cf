"""The table of attributes: what it holds, what texts name of it, and what is banned for that."""

from __future__ import annotations

import json
from importlib.resources import files
from itertools import permutations

import pytest

from prip.control.attributes import attributes, kept_and_banned, named_terms, named_values, refused_terms
from prip.miniature.prompts import user_prompts
from prip.miniature.vocabulary import ATTRIBUTES, NEUTRAL_MODIFIERS, PLACES
from prip.text.words import words_of


def begins_a_word(term: str, text: str) -> bool:
    return f" {term}" in f" {text}"


def test_terms_are_words_with_single_spaces_each_once() -> None:
    for values in attributes().values():
        assert len(values) > 1
        for terms in values.values():
            assert len(set(terms)) == len(terms) > 0
            for term in terms:
                assert term == " ".join(words_of(term))
    raw = (files("prip.control") / "attributes.json").read_text(encoding="utf-8")
    pairs = json.loads(raw, object_pairs_hook=lambda rows: [name for name, _ in rows])
    assert len(set(pairs)) == len(pairs), "no attribute twice"


def test_no_value_bans_the_words_of_another() -> None:
    """What is banned for a value begins no word of what it keeps."""
    for attribute, values in attributes().items():
        for kept, other in permutations(values, 2):
            banned = set(values[other]) - set(values[kept])
            clashes = [(term, own) for term in banned for own in values[kept] if begins_a_word(term, own)]
            assert not clashes, (attribute, kept, other)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_miniatures_modifiers_are_covered(attribute: str) -> None:
    values = ATTRIBUTES[attribute]
    for own in values:
        for modifier in own.modifiers:
            kept, banned = kept_and_banned(named_values(f"a cat, {modifier}"))
            for value in values:
                for other in value.modifiers:
                    hit = any(begins_a_word(term, " ".join(words_of(other))) for term in banned)
                    assert hit is (value is not own), (modifier, other)


def test_the_miniatures_plain_prompts_name_nothing() -> None:
    """Its refiner was trained and measured without attributes to keep."""
    for split in ("train", "dev", "test"):
        for prompt, _ in user_prompts(split, 8, 0, open_place=True):
            assert not named_values(prompt), prompt
    for phrase in (*NEUTRAL_MODIFIERS, *(place.system_phrase for place in PLACES)):
        assert not named_values(phrase), phrase


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a cat", []),
        ("a cat, Watercolor", ["watercolor"]),
        ("an oil painting on canvas", ["oil painting", "on canvas"]),
        ("a black and white photo of a dog", ["black and white", "photo"]),
        ("a close-up, CLOSE UP and closeup", ["close up", "close up", "closeup"]),
        ("my sketchbook, a pinkish drink, an inkling", []),
        ("a photo album", ["photo"]),
        ("a bird's-eye view of a town", ["bird s eye view"]),
        ("not a photo, without bokeh, no watercolor", []),
        ("no dogs in this photo", ["photo"]),
        ("", []),
    ],
)
def test_named_terms(text: str, terms: list[str]) -> None:
    assert named_terms(text) == terms


def test_a_term_of_several_values() -> None:
    painting = named_values("a painting of a cat")
    assert {("medium", "oil painting"), ("medium", "watercolor")} < painting
    assert named_values("an oil painting of a cat") == {("medium", "oil painting")}
    assert named_values("a painting of a cat, watercolor") == {("medium", "watercolor")}
    assert named_values("oil painting on canvas") == {("medium", "oil painting")}
    kept, banned = kept_and_banned(painting)
    assert "photo" in banned and "oil painting" in kept
    assert "painting" not in kept_and_banned(named_values("watercolor"))[1]
    assert "painting" in kept_and_banned(named_values("a photo"))[1]


def test_attributes_that_are_not_named_stay_free() -> None:
    _, banned = kept_and_banned(named_values("a cat, watercolor"))
    assert "moonlight" not in banned and "bokeh" not in banned
    assert kept_and_banned(frozenset()) == (frozenset(), frozenset())


@pytest.mark.parametrize(
    "refusal",
    [
        *(
            "no {}",
            "not {}",
            "not a {}",
            "without {}",
            "without any {}",
            "never {}",
            "avoid {}",
            "non-{}",
            "no more {}",
        ),
        *("don't use {}", "don't make it a {}", "it isn't {}", "instead of {}", "rather than a {}", "anything but {}"),
        *("--no {}", "free of {}"),
    ],
)
@pytest.mark.parametrize(
    ("term", "kin"),
    [("painting", "painted on paper"), ("sunlight", "warm sunlight"), ("bokeh", "depth of field"), ("photo", "dslr")],
)
def test_what_a_prompt_refuses_is_forbidden_with_its_kin(refusal: str, term: str, kin: str) -> None:
    text = f"a cat, {refusal.format(term)}"
    assert {term, kin} <= refused_terms(text)
    assert not named_values(text)


def test_a_refusal_reaches_over_or_and_is_literal() -> None:
    assert {"photo", "sketch"} <= refused_terms("a cat, no photo or sketch") & refused_terms("neither photo nor sketch")
    assert "moonlight" in refused_terms("a city at night, no moonlight")
    assert "night scene" not in refused_terms("a city at night, no moonlight")


def test_what_a_prompt_names_as_well_is_not_refused() -> None:
    assert refused_terms("a photo of a cat, no photo filter") == frozenset()
    assert "watercolor" not in refused_terms("a watercolor, not an oil painting")
    assert "oil painting" in refused_terms("a watercolor, not an oil painting")
    assert refused_terms("no one in this photo") == frozenset()
