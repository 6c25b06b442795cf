"""Prompts that another tool will choose from: returned verbatim, and what is added fits every choice."""

from __future__ import annotations

import time
from itertools import product

import pytest

from prip.control.attributes import attributes, named_values, terms_of
from prip.refiner import Refiner
from prip.text.prompts import modifiers_added, own_words
from prip.text.webui_syntax import ends_in_weight, read_prompt

READ = {
    "a {photo|watercolor} of a cat": ("a photo of a cat", ("photo", "watercolor")),
    "{2$$red|blue|green} hats": ("red hats", ("red", "blue", "green")),
    "{1-2$$red|blue} hats": ("red hats", ("red", "blue")),
    "{2$$ and $$red|blue} hats": ("red hats", ("red", "blue")),
    "{@red|blue} hats": ("red hats", ("red", "blue")),
    "{0.5::a photo|2::a sketch} of a dog": ("a photo of a dog", ("a photo", "a sketch")),
    "${x={day|night}} a city at ${x}": ("a city at day", ("day", "night")),
    "${x=!{day|night}}${x}, a city, ${y:calm}": ("day, a city, calm", ("day", "night")),
    "a __season__ day, __colors/warm*__": ("a season day, colors warm", ("season", "colors warm")),
    "{a {big|small} cat|a dog} runs": ("a big cat runs", ("big", "small", "a big cat", "a dog")),
    "{|red|blue} hats": ("hats", ("red", "blue")),
    "[photo|sketch] of a cat": ("photo of a cat", ("photo", "sketch")),
    "[day:night:0.5] city": ("night city", ("day", "night")),
    "a {big} cat": ("a big cat", ()),
    r"a \{big|small\} cat": ("a {big|small} cat", ()),
    "a cat++ and (a dog)1.3, bird--": ("a cat and a dog, bird", ()),
    "((a cat)++ (in the snow)0.5)--": ("a cat in the snow", ()),
    '("a cat", "a dog").blend(0.7, 0.3)': ('"a cat", "a dog"', ()),
    "a cat.swap(dog) playing": ("a cat playing", ()),
    "a cat --no hats --v 5": ("a cat --no hats --v 5", ()),
    "a well-known place -- dark": ("a well-known place -- dark", ()),
}


@pytest.mark.parametrize(("prompt", "reading"), READ.items())
def test_what_is_read(prompt: str, reading: tuple[str, tuple[str, ...]]) -> None:
    text, _, choices = read_prompt(prompt)
    assert (text, choices) == reading


@pytest.mark.parametrize(
    "run", ["{", "}", "{a|", "${a=", "${a}", "__a", "__", "a++", ")1.5", "{a|b}", "{2$$", ".blend("]
)
def test_hostile_templates_take_little_time(run: str) -> None:
    prompt = (run * 10_000)[:9_999] + "x"
    began = time.process_time()
    read_prompt(prompt)
    assert time.process_time() - began < 1


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained("prip-mini", device="cpu")


FORMS = ["{{{0}|{1}}}", "{{2$${0}|{1}}}", "{{0.5::{0}|{1}}}", "${{x={{{0}|{1}}}}} ${{x}}", "[{0}|{1}]", "[{0}:{1}:0.5]"]
CHOICES = {
    "medium": ("photo", "watercolor"),
    "light": ("golden hour", "moonlight"),
    "color": ("vivid colors", "black and white"),
    "focus": ("bokeh", "sharp focus"),
    "composition": ("close-up", "wide angle"),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_added_fits_every_choice(refiner: Refiner, temperature: float) -> None:
    prompts = {f"a cat, {form.format(*CHOICES[kind])}": kind for form, kind in product(FORMS, CHOICES)}
    prompts |= {"a cat, __lighting__": "light", "a cat in __art/style__": "medium", "a cat, __camera*__": "viewpoint"}
    for seed in range(1 if temperature == 0 else 6):
        texts = refiner.refine(list(prompts), temperature=temperature, top_p=1.0, seed=seed)
        for (prompt, kind), text in zip(prompts.items(), texts, strict=True):
            assert text.startswith(own_words(prompt) + ","), "verbatim"
            added = ", ".join(modifiers_added(prompt, text))
            assert kind not in {attribute for attribute, _ in named_values(added)}, text
            assert not any(f" {term}" in f" {added}" for term in terms_of(frozenset((kind,)))), text


def test_without_keep_attributes_choices_bind_nothing(refiner: Refiner) -> None:
    prompts = ["a cat, {photo|watercolor}", "a cat, {golden hour|moonlight}"]
    texts = [refiner.refine(prompts, keep_attributes=False, temperature=1.0, seed=seed) for seed in range(8)]
    pairs = [pair for own in texts for pair in zip(prompts, own, strict=True)]
    kinds = {kind for pair in pairs for kind, _ in named_values(", ".join(modifiers_added(*pair)))}
    assert {"medium", "light"} <= kinds <= set(attributes())


def test_nothing_follows_a_blend(refiner: Refiner) -> None:
    prompt = '("a cat", "a dog").blend(0.7, 0.3)'
    assert ends_in_weight(prompt)
    with pytest.warns(match="nothing may follow the weights"):
        assert refiner.refine(prompt) == prompt
