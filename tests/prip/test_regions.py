"""Regions of a prompt: each gains in its own chunk, all agree, and what the user wrote stays."""

from __future__ import annotations

import pytest

from prip.control.attributes import named_values
from prip.refiner import Refiner
from prip.text.clip_tokens import count_clip_tokens
from prip.text.prompts import modifiers_added, own_words
from prip.text.regions import join_regions, split_regions
from prip.text.webui_syntax import plain_prompt

WORDS = ["BREAK", "ADDCOL", "ADDROW", "ADDCOMM", "ADDBASE"]
LONG = "a portrait of an old fisherman with a red hat standing on the beach in the rain with his dog and a wooden boat "
PROMPTS = [
    *(f"a cat {word} a dog,{word}\na (boat:1.2)" for word in WORDS),
    "two animals ADDBASE a cat ADDCOL a dog ADDROW a boat ADDCOMM a lake",
    "a cat, golden hour BREAK a dog",
    "a cat BREAK a dog, not a photo",
    f"{LONG * 2} BREAK {LONG}",
    "(a cat:1.1)BREAK (a dog:1.1)BREAK(a boat)",
    "BREAK a cat BREAK , BREAK a dog :1.2",
]


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained("prip-mini", device="cpu")


@pytest.mark.parametrize("prompt", [*PROMPTS, "a cat", "BREAK", "a cat BREAKFAST"])
def test_regions_are_joined_as_they_were_split(prompt: str) -> None:
    assert join_regions(*split_regions(prompt)) == prompt


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_region_gains_in_its_own_chunk_and_agrees_with_the_others(
    refiner: Refiner, prompt: str, temperature: float
) -> None:
    texts = [refiner.refine(prompt, webui_syntax=True, temperature=temperature, seed=seed) for seed in range(4)]
    for text in texts:
        regions, separators = split_regions(prompt)
        refined, kept = split_regions(text)
        assert [text.strip(" ") for text in kept] == [text.strip(" ") for text in separators]
        for own, other in zip(regions, refined, strict=True):
            assert other.startswith(own_words(own))
            gains = other.strip() != own
            room = count_clip_tokens(plain_prompt(own)) < 60 if own.strip(" ,") else False
            assert gains == (room and " :1.2" not in own[-5:]), (own, other)
            assert not gains or count_clip_tokens(plain_prompt(other)) <= 75
        added = modifiers_added(prompt, text)
        assert sum(len(modifiers_added(*pair)) for pair in zip(regions, refined, strict=True)) == len(added)
        light = {value for value in named_values(", ".join([prompt, *added])) if value[0] == "light"}
        assert len(light) <= 2, "values of one light share terms, others never meet"
        assert "photo" not in ", ".join(added) or "not a photo" not in prompt


def test_alternatives_and_styles_reach_every_region(refiner: Refiner) -> None:
    prompt = "a cat BREAK a dog"
    lists = refiner.refine([prompt, "a boat"], webui_syntax=True, num_alternatives=3, styles=["ink"])
    assert len(set(lists[0])) == 3 and all(text.count("pen and ink") == 2 for text in lists[0])
    assert lists[0][0] == refiner.refine(prompt, webui_syntax=True, styles=["ink"])
    assert lists[1] == refiner.refine("a boat", webui_syntax=True, num_alternatives=3, styles=["ink"])


def test_without_webui_syntax_a_prompt_is_one_text(refiner: Refiner) -> None:
    assert refiner.refine("a cat BREAK a dog").startswith("a cat BREAK a dog, ")
