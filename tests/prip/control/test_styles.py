"""Styles and artists: the tables, and how a style stands behind a prompt."""

from __future__ import annotations

import pytest

from prip.control.artists import artist_beginnings, artist_names
from prip.control.styles import phrase_of, styles, with_styles
from prip.text.prompts import check_user_prompt, own_words
from prip.text.words import words_of


def test_every_style_has_a_phrase_that_can_be_typed() -> None:
    for name, phrase in styles().items():
        assert name == " ".join(name.lower().split())
        assert check_user_prompt(phrase) == own_words(phrase) == phrase.strip()


@pytest.mark.parametrize(
    ("prompt", "chosen", "wanted"),
    [
        ("a cat", ["watercolor"], "a cat, watercolor"),
        ("a cat. ", ["Oil  Painting", "my own thing,"], "a cat, oil painting, my own thing"),
        ("a cat. ", [], "a cat. "),
        ("a Watercolor of a cat", ["watercolor"], "a Watercolor of a cat"),
        ("a cat", ["ink", "ink"], "a cat, pen and ink"),
        ("a sketchbook", ["sketch"], "a sketchbook, pencil sketch"),
        ("a cat, not watercolor", ["watercolor"], "a cat, not watercolor, watercolor"),
    ],
)
def test_with_styles(prompt: str, chosen: list[str], wanted: str) -> None:
    assert with_styles(prompt, chosen) == wanted


def test_a_phrase_is_its_own() -> None:
    assert phrase_of("3D") == "3d render"
    assert phrase_of(" Art  Deco. ") == "Art Deco"


def test_names_of_artists() -> None:
    names = artist_names()
    assert len(set(names)) == len(names) > 400
    assert all(name == " ".join(words_of(name)) for name in names)
    assert {"greg rutkowski", "van gogh", "studio ghibli"} <= set(names)
    assert "by " in artist_beginnings()
    assert not {"max", "will", "brown", "ink", "art"} & set(names), "words that are no names"
