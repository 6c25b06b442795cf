"""The true preference: how much the users of the miniature like a scene that was drawn for a subject.

PRIP's training never reads it. `prip-train world` labels noisy pairs with it, from which the rewards learn, and
`prip evaluate` judges by it.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from ..randomness import random_generator
from .scene import FACTOR_SIZES
from .vocabulary import ATTRIBUTES, POOR, SUBJECTS

GOOD_VALUES = (1.0, 0.55, 0.25)
"""Worth of the best, second and third value of an attribute; the poor one is worth nothing."""
SUBJECT_SHARE, PLACE_SHARE = 0.2, 0.1
"""Shares of the score for showing the subject and the place; the attributes share the rest."""
CATEGORY_SHARE = 0.5
"""Probability that a subject shares its category's order of an attribute's values."""


@cache
def preference_table() -> Tensor:
    """Return the worth of each value, float `(subjects, attributes, values)` in 0..1."""
    orders = list(permutations(GOOD_VALUES))
    table = torch.zeros(len(SUBJECTS), len(ATTRIBUTES), POOR + 1)
    for row, subject in enumerate(SUBJECTS):
        for column, attribute in enumerate(ATTRIBUTES):
            own = random_generator("preference", subject.name, attribute)
            of_category = random_generator("preference", subject.category, attribute)
            chosen = of_category if float(torch.rand((), generator=own)) < CATEGORY_SHARE else own
            table[row, column, :POOR] = torch.tensor(orders[int(torch.randint(len(orders), (), generator=chosen))])
    return table


def expected_preference(subject: Tensor, place: Tensor, probabilities: list[Tensor]) -> Tensor:
    """Return the preference for images whose scenes are known by probabilities, float `(n,)` in 0..1.

    Args:
        subject: Requested subjects, int64 `(n,)`.
        place: Requested places, int64 `(n,)`; -1 accepts any.
        probabilities: `(n, values)` for each factor of `scene.FACTORS`.
    """
    rows = torch.arange(len(subject))
    worth = preference_table()[subject]
    attributes = torch.stack([(p * worth[:, i]).sum(1) for i, p in enumerate(probabilities[2:])], 1).mean(1)
    shows_place = torch.where(place < 0, 1.0, probabilities[1][rows, place.clamp(min=0)])
    shows_subject = probabilities[0][rows, subject]
    share = 1 - SUBJECT_SHARE - PLACE_SHARE
    return SUBJECT_SHARE * shows_subject + PLACE_SHARE * shows_place + share * attributes


def scene_preference(subject: Tensor, place: Tensor, scenes: Tensor) -> Tensor:
    """Return the preference for known scenes, int64 `(n, factors)`, as float `(n,)` in 0..1."""
    one_hot = [torch.nn.functional.one_hot(scenes[:, i], size).float() for i, size in enumerate(FACTOR_SIZES)]
    return expected_preference(subject, place, one_hot)
