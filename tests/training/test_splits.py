"""The train and dev splits of prompts without splits of their own."""

from __future__ import annotations

import random

import pandas as pd

from prip.training.data.splits import split_by_series

WORDS = [f"word{number}" for number in range(400)]


def session(number: int) -> list[str]:
    """Returns edits of one prompt: each adds a modifier, changes the end of the subject or the spelling."""
    chance = random.Random(number)
    start = " ".join(chance.sample(WORDS, 6))
    first = f"{start} by the sea"
    return [first, f"{start} in the fog", f"{first}, oil painting", f"{first}, oil painting, 8k", first.upper() + "."]


def test_edits_of_one_prompt_are_on_the_same_side() -> None:
    sessions = [session(number) for number in range(200)]
    prompts = pd.Series([prompt for edits in sessions for prompt in edits])
    split = split_by_series(prompts, 0.2)
    sides = split.groupby([number for number, edits in enumerate(sessions) for _ in edits]).nunique()
    assert sides.max() == 1
    assert (split == "dev").mean() == 0.2


def test_prompts_that_differ_only_in_case_or_punctuation_stay_together() -> None:
    pairs = [(f"a cat, number {number} in a hat", f"A cat number {number}; in a hat!") for number in range(100)]
    split = split_by_series(pd.Series([prompt for pair in pairs for prompt in pair]), 0.5)
    assert (split[0::2].to_numpy() == split[1::2].to_numpy()).all()


def test_the_split_does_not_depend_on_order_or_repetition() -> None:
    prompts = [prompt for number in range(50) for prompt in session(number)]
    shuffled = random.Random(1).sample(prompts, len(prompts)) + prompts[:20]
    one, other = (
        dict(zip(order, split_by_series(pd.Series(order), 0.3), strict=True)) for order in (prompts, shuffled)
    )
    assert one == other


def test_a_series_that_joins_most_prompts_is_train() -> None:
    tail = ", intricate, elegant, highly detailed, artstation"
    prompts = pd.Series([f"thing {number}{tail}" for number in range(90)] + [f"other {number}" for number in range(20)])
    split = split_by_series(prompts, 0.1)
    assert set(split[:90]) == {"train"} and (split == "dev").sum() == 11


def test_without_a_share_nothing_is_dev() -> None:
    assert set(split_by_series(pd.Series(["a cat", "a dog"]), 0.0)) == {"train"}
    assert set(split_by_series(pd.Series(["a cat", "a dog"]), 1.0)) == {"dev"}
    assert split_by_series(pd.Series([], dtype=object), 0.5).empty
