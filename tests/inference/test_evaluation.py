"""The evaluation on small objects that fulfil the protocols, and on the renderer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import torch

from prip.errors import InputError
from prip.inference.evaluation.gallery import Gallery
from prip.inference.evaluation.protocol import (
    FIRST_EVALUATION_SEED,
    FIRST_SEARCH_SEED,
    EvaluationSettings,
    Prompt,
    evaluation_prompts,
    image_seeds,
    read_settings,
)
from prip.inference.evaluation.refiners import PlainRefiner, RandomRefiner, with_modifiers
from prip.inference.evaluation.run import agreement_on_renders, evaluate
from prip.inference.evaluation.search import OPEN, BestRefiner, ascend, value_options
from prip.inference.evaluation.table import tables, to_markdown, to_text
from prip.miniature.prompts import split_of
from prip.miniature.scene import parse
from prip.miniature.vocabulary import ATTRIBUTES, MODIFIERS, PLACES, SUBJECTS

PROMPTS = [
    Prompt("a cat by the sea", "cat", "cat/beach"),
    Prompt("one kitty by the sea", "cat", "cat/beach"),
    Prompt("a dog in town", "dog", "dog/city"),
    Prompt("an owl indoors", "owl", "owl/room"),
]
SETTINGS = EvaluationSettings(bootstrap_draws=200, search_images=2, batch_size=7)


class Painter:
    """Puts into an image what its prompt asks for (0 = open, else 1 + value) and its seed: exact, and counted."""

    name, token_limit = "painter", 75

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.largest = 0

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> torch.Tensor:
        self.calls += zip(prompts, seeds, strict=True)
        self.largest = max(self.largest, len(prompts))
        images = torch.zeros(len(prompts), 3, 2, 4, dtype=torch.uint8)
        for image, prompt, seed in zip(images, prompts, seeds, strict=True):
            values = parse(prompt).values[2:]
            image.view(-1)[: len(values)] = torch.tensor([0 if v is None else v + 1 for v in values], dtype=torch.uint8)
            image.view(-1)[20] = seed % 3
        return images


class Judge:
    """Likes the second value of every attribute, twice as much with cats, and a little the seed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, user_prompts: Sequence[str], images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1).float()
        liked = (flat[:, : len(ATTRIBUTES)] == 2).float().sum(1)
        weight = torch.tensor([2.0 if parse(p)["subject"] == 0 else 1.0 for p in user_prompts])
        return weight * liked + 0.01 * flat[:, 20]


class Adds:
    """A refiner that adds fixed modifiers."""

    def __init__(self, name: str, *modifiers: str) -> None:
        self.name = name
        self.modifiers = modifiers
        self.seeds: list[int] = []

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        self.seeds += seeds
        return [with_modifiers(prompt, self.modifiers) for prompt in user_prompts]


GOOD = [values[1].modifiers[0] for values in ATTRIBUTES.values()]


def measured(**changes):
    refiners = [PlainRefiner(), Adds("warmup", GOOD[0]), Adds("rl", *GOOD[:3])]
    judges = {name: Judge(name) for name in ("truth", "second_reward")}
    options = {"with_best": True, **changes}
    return evaluate(PROMPTS, refiners, {"diffusion": Painter()}, judges, SETTINGS, **options), refiners


def row(result, refiner: str, judge: str = "truth"):
    (found,) = [r for r in result["rows"] if (r["refiner"], r["judge"]) == (refiner, judge)]
    return found


def test_rows_hold_what_the_format_says_and_are_right() -> None:
    result, _ = measured()
    names = {"refiner", "generator", "judge", "n", "mean", "difference", "low", "high", "p_value"}
    assert all(set(r) == names for r in result["rows"])
    assert [r["refiner"] for r in result["rows"] if r["judge"] == "truth"] == ["none", "warmup", "rl", "best"]
    none, warmup, rl, best = (row(result, name) for name in ("none", "warmup", "rl", "best"))
    assert all(r["n"] == 4 and r["generator"] == "diffusion" for r in (none, warmup, rl, best))
    assert (none["difference"], none["p_value"]) == (0.0, None)
    # a subject counts once: cats gain 2 a modifier, dog and owl 1
    for found, modifiers in ((warmup, 1), (rl, 3), (best, 5)):
        assert found["difference"] == pytest.approx(modifiers * 4 / 3)
        assert found["low"] == pytest.approx(modifiers) and found["high"] == pytest.approx(2 * modifiers)
        assert found["mean"] - none["mean"] == pytest.approx(found["difference"])
        assert found["p_value"] == pytest.approx(2 / 201)
    share, low, high = result["gap_closed"]["diffusion"]
    assert (share, low, high) == pytest.approx((0.6, 0.6, 0.6))
    steps = [s for s in result["steps"] if s["judge"] == "truth"]
    assert [(s["from"], s["to"], s["difference"]) for s in steps] == [
        ("none", "warmup", pytest.approx(4 / 3)),
        ("warmup", "rl", pytest.approx(8 / 3)),
    ]
    json.dumps(result, allow_nan=False)


def test_all_refiners_get_the_same_seeds_and_no_other_evaluation_does() -> None:
    _, refiners = measured(with_best=False)
    assert refiners[1].seeds == refiners[2].seeds == list(range(3_000_000_000, 3_000_000_008))
    _, others = measured(with_best=False, seed=1)
    assert not set(refiners[1].seeds) & set(others[1].seeds)
    assert min(image_seeds(FIRST_SEARCH_SEED, 3, 0)) > max(image_seeds(FIRST_EVALUATION_SEED, 500_000, 0))
    assert min(image_seeds(FIRST_EVALUATION_SEED, 3, 1)) > max(image_seeds(FIRST_SEARCH_SEED, 500_000, 0))
    with pytest.raises(InputError, match="500,000 image seeds"):
        image_seeds(FIRST_EVALUATION_SEED, 500_001, 0)


def test_without_rl_or_best_there_is_no_gap() -> None:
    result, _ = measured(with_best=False)
    assert result["gap_closed"] == {}
    assert "best" not in {r["refiner"] for r in result["rows"]}


def test_the_same_evaluation_gives_the_same_result() -> None:
    assert measured()[0] == measured()[0]


def test_a_gallery_draws_nothing_twice_in_batches_of_its_size() -> None:
    painter = Painter()
    gallery = Gallery(painter, {"truth": Judge("truth"), "other": Judge("other")}, batch_size=3)
    users, texts, seeds = ["a cat"] * 6, ["a cat", "a cat, blurry"] * 3, [1, 1, 2, 2, 1, 1]
    first = gallery.scores(users, texts, seeds)
    assert gallery.drawn == len(painter.calls) == len(set(painter.calls)) == 4
    assert painter.largest == 3
    again = gallery.scores(users, texts, seeds, ["truth"])
    assert len(painter.calls) == 4
    np.testing.assert_array_equal(first["truth"], again["truth"])
    wanted = Judge("truth")(users, Painter()(texts, seeds)).double().numpy()
    np.testing.assert_array_equal(first["truth"], wanted)


def test_ascent_finds_the_best_of_a_separable_score() -> None:
    worth = {option: float(i * 7 % 5) for i, option in enumerate(MODIFIERS)}

    def score(candidates):
        return np.array([sum(worth[o] for o in state if o) * (unit - 1) for unit, state in candidates])

    states, values = ascend(score, [OPEN] * 3, np.zeros(3), value_options)
    assert states[0] == states[1] == OPEN  # unit 0 is worse off with anything, unit 1 gains nothing
    firsts = [[v.modifiers[0] for v in options] for options in ATTRIBUTES.values()]
    top = max(sum(worth[o] for o in chosen) for chosen in product(*firsts))
    assert sum(worth[o] for o in states[2]) == values[2] == top


def best_refiner(per_prompt: bool, painter: Painter, **options) -> BestRefiner:
    unit_of = {p.text: p.text if per_prompt else p.combination for p in PROMPTS}
    gallery = Gallery(painter, {"truth": Judge("truth")})
    count = 2 * len(set(unit_of.values()))
    return BestRefiner(gallery, unit_of, image_seeds(FIRST_SEARCH_SEED, count, 0), **options)


@pytest.mark.parametrize("per_prompt", [True, False])
def test_best_finds_the_best_and_searches_once(per_prompt: bool) -> None:
    painter = Painter()
    best = best_refiner(per_prompt, painter)
    prompts = [prompt.text for prompt in PROMPTS]
    refined = best(prompts, [0] * 4)
    assert refined == [with_modifiers(prompt, GOOD) for prompt in prompts]
    drawn = len(painter.calls)
    assert drawn == len(set(painter.calls)) == (4 if per_prompt else 3) * 2 * (1 + 5 * 4 + 5)
    assert best(prompts[::-1], [5] * 4) == refined[::-1]
    assert len(painter.calls) == drawn
    seeds = {seed for _, seed in painter.calls}
    assert seeds == set(image_seeds(FIRST_SEARCH_SEED, 8 if per_prompt else 6, 0))


def test_best_takes_the_wording_that_the_generator_obeys_more_often() -> None:
    class HardOfHearing(Painter):
        """Hears "highly detailed" only with even seeds."""

        def __call__(self, prompts, seeds):
            heard = [
                p if s % 2 == 0 else p.replace("highly detailed", "8k") for p, s in zip(prompts, seeds, strict=True)
            ]
            return super().__call__(heard, seeds)

    wanted = [modifier.replace("highly detailed", "intricate texture") for modifier in GOOD]
    assert wanted != GOOD
    assert best_refiner(True, HardOfHearing())(["a cat by the sea"], [0]) == [
        with_modifiers("a cat by the sea", wanted)
    ]
    assert best_refiner(True, HardOfHearing(), wordings=1)(["a cat by the sea"], [0]) == [
        with_modifiers("a cat by the sea", GOOD)
    ]


def test_random_adds_as_many_modifiers_as_system_prompts_hold() -> None:
    refined = RandomRefiner()(["a cat."] * 300, list(range(300)))
    assert refined == RandomRefiner()(["a cat."] * 300, list(range(300)))
    added = [text.removeprefix("a cat, ").split(", ") for text in refined]
    assert all(text.startswith("a cat, ") for text in refined)
    asked = [[m for m in modifiers if m in MODIFIERS] for modifiers in added]
    assert {len(modifiers) for modifiers in asked} == {2, 3, 4, 5}
    assert all(len({MODIFIERS[m][0] for m in modifiers}) == len(modifiers) for modifiers in asked)


@pytest.mark.parametrize("split", ["test", "dev"])
def test_prompts_are_of_the_split(split: str) -> None:
    prompts = evaluation_prompts(split, EvaluationSettings(), seed=0)
    assert {prompt.subject for prompt in prompts} == {subject.name for subject in SUBJECTS}
    for prompt in prompts:
        asked = parse(prompt.text)
        assert split_of(SUBJECTS[asked["subject"]], PLACES[asked["place"]]) == split
        assert prompt.combination == f"{prompt.subject}/{asked['place']}"
    few = evaluation_prompts(split, EvaluationSettings(subjects=5), seed=0)
    assert len({prompt.subject for prompt in few}) == 5 and set(few) <= set(prompts)


def test_agreement_is_perfect_for_a_judge_that_knows_and_not_for_one_that_does_not() -> None:
    from prip.miniature.preference import scene_preference

    shown: list[torch.Tensor] = []

    class Blind(Judge):
        def __call__(self, user_prompts, images):
            shown.append(images)
            return torch.zeros(len(images))

    found = agreement_on_renders(Blind("truth"), PROMPTS, 24, 16)
    assert found["correlation"] is None and found["n"] == 24 and 0.2 < found["mean_absolute_error"] < 0.8
    assert shown[0].shape == (24, 3, 16, 16) and len(torch.unique(shown[0], dim=0)) > 12

    class Knows(Judge):
        """Knows the scenes that were drawn, in their order."""

        def __call__(self, user_prompts, images):
            from prip.miniature.scene import sample_scene
            from prip.randomness import random_generator

            texts = RandomRefiner()(user_prompts, list(range(len(user_prompts))))
            generators = [random_generator("agreement", 0, i) for i in range(len(texts))]
            scenes = torch.tensor([sample_scene(parse(t), g) for t, g in zip(texts, generators, strict=True)])
            asked = [parse(prompt) for prompt in user_prompts]
            return scene_preference(*(torch.tensor([a[f] for a in asked]) for f in ("subject", "place")), scenes)

    exact = agreement_on_renders(Knows("truth"), PROMPTS, 24, 16)
    assert exact["correlation"] == pytest.approx(1) and exact["mean_absolute_error"] == pytest.approx(0, abs=1e-6)


def test_tables_show_what_was_found() -> None:
    result, _ = measured()
    result["agreement"] = {"judge": "truth", "n": 9, "correlation": 0.987, "mean_absolute_error": 0.01}
    text, markdown = to_text(tables(result)), to_markdown(tables(result))
    for shown in ("diffusion, judge truth, 4 prompts", "rl - warmup", "60.0 %", "0.987", "+4.000"):
        assert shown in text and shown in markdown
    assert max(map(len, text.splitlines())) <= 100
    header = markdown.splitlines()[2]
    assert header == "| refiner | mean | - none | 95 % interval | p |"
    result["gap_closed"]["diffusion"] = [None, None, None]
    assert "best is not above none" in to_text(tables(result))


def test_presets_and_files_are_read_and_checked(tmp_path) -> None:
    assert read_settings("miniature").images_per_prompt == 4
    assert read_settings("miniature", images_per_prompt=5).images_per_prompt == 5
    assert read_settings("smoke", images_per_prompt=None).subjects == 3
    own = tmp_path / "own.yaml"
    for content, message in (
        ("per_combination: 0", "per_combination must be a whole number of at least 1, it is 0"),
        ("subjects: 1", "subjects must be a whole number of at least 2"),
        ("search_per: word", "search_per must be prompt or combination"),
        ("phrasings: 3", "unknown fields: phrasings"),
        ("[1, 2]", "must hold a mapping, it holds a list"),
        ("a: b: c", "cannot be read as YAML"),
    ):
        own.write_text(content)
        with pytest.raises(InputError, match=message):
            read_settings(str(own))
    own.write_text("per_combination: 3\n")
    assert read_settings(str(own)).per_combination == 3
    with pytest.raises(InputError, match=r"neither a preset \(miniature, smoke\) nor a file"):
        read_settings("minature")
