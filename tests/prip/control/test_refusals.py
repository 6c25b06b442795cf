"""What prompts refuse: never added, whatever the way of refusing, and named in the user's own words."""

from __future__ import annotations

import pytest

from prip.control.attributes import attributes, named_terms, named_values, refused_terms
from prip.control.refusals import refused_phrases
from prip.refiner import Refiner
from prip.text.prompts import modifiers_added

WAYS = [
    *("no {}", "not {}", "not a {}", "without {}", "without any {}", "w/o {}", "never {}", "avoid {}", "non-{}"),
    *("no more {}", "don't use {}", "do not show any {}", "don’t make it a {}", "it isn't {}", "instead of {}"),
    *("rather than a {}", "anything but {}", "--no {}", "--ar 3:2 --no text, {} --v 5", "free of {}", "exclude {}"),
    *("lacking {}", "omit the {}", "please no {}", "no kind of {}", "neither text nor {}", "{} is not wanted"),
    *("Negative prompt: text, {}", "({}:0)", "({}:0.0)", "({}:-1.2)", "((text, {}:-.5))", "no ({}:1.3)"),
]
TERMS = [
    *("painting", "photo", "watercolor", "oil painting", "sketch", "drawing", "pen and ink", "illustration"),
    *("digital art", "anime", "sunlight", "golden hour", "daylight", "moonlight", "night sky", "overcast"),
    *("studio lighting", "neon lights", "vivid colors", "pastel colors", "black and white", "muted colors"),
    *("warm colors", "sharp focus", "highly detailed", "bokeh", "rule of thirds", "close-up", "wide angle"),
    *("low angle", "aerial view"),
]


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(set(WAYS)) >= 20 and len(set(TERMS)) >= 30


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_refusing_forbids_the_term_and_its_kin(way: str) -> None:
    for term in TERMS:
        prompt = f"a cat, {way.format(term)}"
        assert refused_phrases(prompt)[-1].replace("-", " ") == term.replace("-", " "), prompt
        assert not named_values(read(prompt)), prompt
        (named,) = named_terms(term)
        kin = {
            name for values in attributes().values() for names in values.values() if named in names for name in names
        }
        assert kin <= refused_terms(read(prompt)), prompt


def read(prompt: str) -> str:
    from prip.text.webui_syntax import with_weights_as_refusals

    return with_weights_as_refusals(prompt)


def contradicted(refiner: Refiner, seeds: int) -> list[tuple[str, str]]:
    """Return the (prompt, text) that add what the prompt refuses: greedy texts, and sampled ones for each seed."""
    prompts = {f"a cat, {way.format(term)}": term for way in WAYS for term in TERMS}
    texts = [refiner.refine(list(prompts))]
    for seed in range(seeds):
        texts.append(refiner.refine(list(prompts), temperature=1.0, top_p=1.0, seed=seed))
    wrong = []
    for refined in texts:
        for (prompt, term), text in zip(prompts.items(), refined, strict=True):
            added = ", ".join(modifiers_added(prompt, text))
            if named_values(added) & named_values(term) or term in added:
                wrong.append((prompt, text))
    return wrong


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    return Refiner.from_pretrained("prip-mini", device="cpu")


def test_no_greedy_text_adds_what_its_prompt_refuses(refiner: Refiner) -> None:
    assert contradicted(refiner, seeds=0) == []


@pytest.mark.slow
def test_no_sampled_text_adds_what_its_prompt_refuses(refiner: Refiner) -> None:
    assert contradicted(refiner, seeds=8) == []


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a cat", ()),
        ("a beach without people, no hats in the snow", ("people", "hats")),
        ("neither dogs nor birds on a street", ("dogs", "birds")),
        ("don't add any text or logos", ("text", "logos")),
        ("a cat --no people, cars --v 5", ("people", "cars")),
        ("a horse, people are not wanted", ("people",)),
        ("a lens-flare-free photo of a sugar-free drink", ("flare", "sugar")),
        ("a cat AND sunlight :-1", ("sunlight",)),
        ("a cat, no photo or sketch", ("photo", "sketch")),
        ("a photo of a cat, no photo filter", ("filter",)),
        ("a red scarf, no red hat", ("hat",)),
        ("a red car, anything but a red car", ()),
        ("two dogs, not a dog", ()),
        ('a sign that says "no smoking"', ()),
        ("a NO PARKING sign", ()),
        ("a poster of No Time to Die", ()),
        ("no one on the beach", ()),
        ("no more than 3 cats", ()),
        ("A CAT, NO HATS", ("hats",)),
        ("a cat who never sleeps", ()),
    ],
)
def test_refused_phrases(prompt: str, phrases: tuple[str, ...]) -> None:
    assert refused_phrases(prompt) == phrases
