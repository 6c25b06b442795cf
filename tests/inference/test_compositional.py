"""The compositional check of the miniature: prompts that name things, and scorers that see whether they are shown."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from prip.errors import InputError
from prip.inference.checkpoint_parts import Parts
from prip.inference.evaluation.kinds.compositional import FACTORS_OF, PAIR, AskedFor
from prip.inference.evaluation.kinds.registry import PROMPT_SETS, SCORERS, Context
from prip.inference.evaluation.kinds.seeds import image_seeds
from prip.miniature.prompts import combinations
from prip.miniature.renderer import Renderer
from prip.miniature.scene import FACTOR_SIZES, FACTORS, parse
from prip.miniature.vocabulary import ATTRIBUTES


@pytest.fixture(scope="module")
def context() -> Context:
    """The embedded checkpoint, whose reader B can read."""
    return Context(Parts.of_checkpoint("prip-mini"), "cpu", 0)


def prompts(context: Context, **options):
    return PROMPT_SETS.make("prompts", {"kind": "miniature-compositional", **options}, context)


def test_prompts_name_what_their_category_says(context: Context) -> None:
    made = prompts(context, per_attribute=12, pairs=20)
    held_out = {(subject.name, place.name) for subject, place in combinations("test")}
    for one in made:
        named = [factor for factor in FACTORS if parse(one.text)[factor] is not None]
        assert named[:2] == ["subject", "place"], one.text
        assert named[2:] == [one.category] if one.category in ATTRIBUTES else len(named) == 4, one.text
        assert one.unit == one.text and any(one.cluster == subject for subject, _ in held_out)
    counts = Counter(one.category for one in made)
    assert counts[PAIR] >= 19 and all(counts[attribute] >= 11 for attribute in ATTRIBUTES), "texts may come twice"
    assert len({one.cluster for one in made}) == 40, "all subjects take turns"
    assert made == prompts(context, per_attribute=12, pairs=20)


def test_all_values_and_all_couples_of_attributes_come(context: Context) -> None:
    made = prompts(context, per_attribute=12, pairs=20)
    for attribute in ATTRIBUTES:
        values = Counter(parse(one.text)[attribute] for one in made if one.category == attribute)
        assert len(values) == len(ATTRIBUTES[attribute]) and max(values.values()) <= 3
    couples = Counter(
        tuple(attribute for attribute in ATTRIBUTES if parse(one.text)[attribute] is not None)
        for one in made
        if one.category == PAIR
    )
    assert len(couples) == 10 and max(couples.values()) == 2


def test_splits_and_seeds_give_other_prompts(context: Context) -> None:
    texts = {one.text for one in prompts(context)}
    assert len(texts) > 260
    dev = {one.text for one in prompts(context, split="dev")}
    other = {one.text for one in prompts(Context(context.parts, "cpu", 1))}
    for others in (dev, other):
        assert len(texts & others) < 10
    for options, message in (
        ({"split": "train"}, "split: expected test or dev, got 'train'"),
        ({"pairs": -1}, "pairs.* whole number|pairs.* integer"),
    ):
        with pytest.raises(InputError, match=message):
            prompts(context, **options)


class Sees:
    """A reader that is sure of one scene an image."""

    def __init__(self, *scenes: dict[str, int]) -> None:
        self.scenes = scenes

    def read(self, images: torch.Tensor) -> list[torch.Tensor]:
        values = [torch.tensor([scene.get(factor, 3) for scene in self.scenes]) for factor in FACTORS]
        return [torch.nn.functional.one_hot(one, size).float() for one, size in zip(values, FACTOR_SIZES, strict=True)]


def test_scores_are_shares_of_what_the_user_named() -> None:
    prompt = "a cat by the sea, moonlight, vivid colors"  # subject 0, place 1, light 1, color 0
    whole = {"subject": 0, "place": 1, "light": 1, "color": 0}
    scenes = [whole, {**whole, "light": 0}, {**whole, "light": 0, "color": 2, "place": 5}, {"style": 2}]
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    expected = {
        "all": [1, 0.75, 0.25, 0],
        "subject": [1, 1, 1, 0],
        "place": [1, 1, 0, 0],
        "attributes": [1, 0.5, 0, 0],
    }
    assert set(expected) == set(FACTORS_OF)
    for factor, scores in expected.items():
        found = AskedFor("asked", Sees(*scenes), factor)([prompt] * 4, images)  # type: ignore[arg-type]
        assert found.dtype == torch.float32 and found.tolist() == scores, factor


def test_what_is_not_named_cannot_be_scored(context: Context) -> None:
    scorer = SCORERS.make("attributes", {"kind": "asked-for", "factor": "attributes"}, context)
    images = Renderer(size=32)(["a cat"] * 2, [0, 1])
    with pytest.raises(InputError, match="scorer 'attributes': expected prompts that name one of light.* got 'a cat'"):
        scorer(["a cat, bokeh", "a cat"], images)
    with pytest.raises(InputError, match="factor: expected all, subject, place or attributes, got 'light'"):
        SCORERS.make("light", {"kind": "asked-for", "factor": "light"}, context)


def test_a_style_that_is_painted_over_is_caught(context: Context) -> None:
    """Renders of what the user asked for, and of prompts whose refiner has put its own style in place of the user's."""
    made = [one for one in prompts(context, per_attribute=40, pairs=0) if one.category == "style"]
    asked = [one.text for one in made]
    overridden = [text.rsplit(", ", 1)[0] + (", bokeh, oil painting") for text in asked]
    seeds = [image_seeds(text, 1, 0)[0] for text in asked]
    renderer = Renderer(size=32)
    scorers = {factor: SCORERS.make(factor, {"kind": "asked-for", "factor": factor}, context) for factor in FACTORS_OF}
    kept, lost = (
        {factor: float(scorer(asked, renderer(drawn, seeds)).mean()) for factor, scorer in scorers.items()}
        for drawn in (asked, overridden)
    )
    assert min(kept.values()) > 0.85
    wanted_oil = sum(parse(text)["style"] == 2 for text in asked) / len(asked)
    assert lost["attributes"] == pytest.approx(wanted_oil, abs=0.05)
    assert lost["subject"] > 0.9 and lost["all"] == pytest.approx((2 + wanted_oil) / 3, abs=0.1)
