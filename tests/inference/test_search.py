"""The search for the best modifiers, the random ones, and the judge's agreement, on small objects of the miniature."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from painters import GOOD, Judge, Painter

from prip.errors import InputError
from prip.inference.evaluation.kinds.miniature import RandomRefiner, agreement_on_renders
from prip.inference.evaluation.kinds.refiners import with_modifiers
from prip.inference.evaluation.kinds.registry import REFINERS, Context
from prip.inference.evaluation.kinds.search import OPEN, BestOptions, BestRefiner, Gallery, ascend, value_options
from prip.inference.evaluation.kinds.seeds import search_seeds
from prip.miniature.scene import parse
from prip.miniature.vocabulary import ATTRIBUTES, MODIFIERS

PROMPTS = ["a cat by the sea", "one kitty by the sea", "a dog in town", "an owl indoors"]


def test_a_gallery_draws_nothing_twice_in_batches_of_its_size() -> None:
    painter = Painter()
    gallery = Gallery(painter, Judge("truth"), batch_size=3)
    users, texts, seeds = ["a cat"] * 6, ["a cat", "a cat, blurry"] * 3, [1, 1, 2, 2, 1, 1]
    first = gallery.scores(users, texts, seeds)
    assert len(painter.calls) == len(set(painter.calls)) == 4 and painter.largest == 3
    np.testing.assert_array_equal(first, gallery.scores(users, texts, seeds))
    assert len(painter.calls) == 4
    np.testing.assert_array_equal(first, Judge("truth")(users, Painter()(texts, seeds)).double().numpy())


def test_ascent_finds_the_best_of_a_separable_score() -> None:
    worth = {option: float(i * 7 % 5) for i, option in enumerate(MODIFIERS)}

    def score(candidates):
        return np.array([sum(worth[o] for o in state if o) * (unit - 1) for unit, state in candidates])

    states, values = ascend(score, [OPEN] * 3, np.zeros(3), value_options)
    assert states[0] == states[1] == OPEN  # unit 0 is worse off with anything, unit 1 gains nothing
    firsts = [[v.modifiers[0] for v in options] for options in ATTRIBUTES.values()]
    top = max(sum(worth[o] for o in chosen) for chosen in product(*firsts))
    assert sum(worth[o] for o in states[2]) == values[2] == top


def best_refiner(painter: Painter, **options) -> BestRefiner:
    return BestRefiner("best", Gallery(painter, Judge("truth")), BestOptions(images=2, **options))


def test_best_finds_the_best_of_each_prompt_on_seeds_of_its_own() -> None:
    painter = Painter()
    refined = best_refiner(painter)([*PROMPTS, PROMPTS[0]], [0] * 5)
    assert refined == [with_modifiers(prompt, GOOD) for prompt in [*PROMPTS, PROMPTS[0]]]
    assert len(painter.calls) == len(set(painter.calls)) == 4 * 2 * (1 + 5 * 4 + 5)
    assert {seed for _, seed in painter.calls} == {seed for one in PROMPTS for seed in search_seeds(one, 2, 0)}
    alone = Painter()
    assert best_refiner(alone)(PROMPTS[2:3], [9]) == refined[2:3], "no other prompt changes it"


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
    prompt = "a cat by the sea"
    assert best_refiner(HardOfHearing())([prompt], [0]) == [with_modifiers(prompt, wanted)]
    assert best_refiner(HardOfHearing(), wordings=1)([prompt], [0]) == [with_modifiers(prompt, GOOD)]


def test_best_wants_a_judge_among_the_scorers_and_numbers_that_make_sense() -> None:
    context = Context(parts=None, device="cpu", seed=0)  # type: ignore[arg-type]
    best = REFINERS.make("best", {"kind": "best", "judge": "taste"}, context)
    with pytest.raises(InputError, match="judge: expected one of the scorers truth, got 'taste'"):
        best.on(Painter(), {"truth": Judge("truth")}, 8)
    with pytest.raises(InputError, match="images: expected a whole number of at least 1, got 0"):
        REFINERS.make("best", {"kind": "best", "images": 0}, context)


def test_random_adds_as_many_modifiers_as_system_prompts_hold() -> None:
    refined = RandomRefiner()(["a cat."] * 300, list(range(300)))
    assert refined == RandomRefiner()(["a cat."] * 300, list(range(300)))
    added = [text.removeprefix("a cat, ").split(", ") for text in refined]
    assert all(text.startswith("a cat, ") for text in refined)
    asked = [[m for m in modifiers if m in MODIFIERS] for modifiers in added]
    assert {len(modifiers) for modifiers in asked} == {2, 3, 4, 5}
    assert all(len({MODIFIERS[m][0] for m in modifiers}) == len(modifiers) for modifiers in asked)


def test_agreement_is_perfect_for_a_judge_that_knows_and_not_for_one_that_does_not() -> None:
    from prip.miniature.preference import scene_preference

    shown: list[torch.Tensor] = []

    class Blind(Judge):
        def __call__(self, user_prompts, images):
            shown.append(images)
            return torch.zeros(len(images))

    found = agreement_on_renders(Blind("truth"), PROMPTS, 24, 16, 0)
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

    exact = agreement_on_renders(Knows("truth"), PROMPTS, 24, 16, 0)
    assert exact["correlation"] == pytest.approx(1) and exact["mean_absolute_error"] == pytest.approx(0, abs=1e-6)
