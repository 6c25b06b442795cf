"""The miniature's compositional check: does refinement keep what the user named, or override it?

GenEval tests whether an image shows the objects, colours and positions of its prompt. In the miniature a user can name
a subject, a place and values of the attributes; reader B tells which of them an image shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from prip.errors import InputError
from prip.miniature.prompts import combinations as split_combinations
from prip.miniature.prompts import user_prompt
from prip.miniature.reader import Reader
from prip.miniature.scene import FACTORS, parse
from prip.miniature.vocabulary import ATTRIBUTES
from prip.options import check_whole
from prip.protocols import Images, Reward
from prip.randomness import random_generator

from .miniature import Split, judges
from .registry import Context, EvaluationPrompt

Factor = Literal["all", "subject", "place", "attributes"]
FACTORS_OF: dict[str, Sequence[str]] = {
    "all": FACTORS,
    "subject": ("subject",),
    "place": ("place",),
    "attributes": tuple(ATTRIBUTES),
}
"""The factors of a scene that a scorer checks, by the option `factor`."""
PAIR = "pair"
"""Category of the prompts that name two attributes; those that name one have the attribute's name."""


def make_prompts(
    name: str, context: Context, *, split: Split = "test", per_attribute: int = 40, pairs: int = 80
) -> list[EvaluationPrompt]:
    """The kind `miniature-compositional`: user prompts that name a subject, a place and one or two attributes.

    An example is "a picture of a cat by the sea, moonlight". The values of an attribute are equally frequent, including
    those that nobody prefers. The category is the named attribute, or `pair`; each subject is a cluster.

    Args:
        split: The held-out split that subjects and places are from.
        per_attribute: Prompts per attribute.
        pairs: Prompts that name two attributes.
    """
    for option, value in (("per_attribute", per_attribute), ("pairs", pairs)):
        check_whole(option, value, 0)
    couples = list(combinations(ATTRIBUTES, 2))
    asked: list[tuple[str, tuple[str, ...], int]]
    asked = [(attribute, (attribute,), count) for attribute in ATTRIBUTES for count in range(per_attribute)]
    asked += [(PAIR, couples[count % len(couples)], count // len(couples)) for count in range(pairs)]
    generator = random_generator("compositional", context.seed, split)
    scenes = split_combinations(split)
    order: list[int] = []
    prompts: dict[str, EvaluationPrompt] = {}
    for category, attributes, count in asked:
        order = order or torch.randperm(len(scenes), generator=generator).tolist()
        subject, place = scenes[order.pop()]
        text = user_prompt(subject, place, generator)
        modifiers = [_modifier(attribute, count + step, generator) for step, attribute in enumerate(attributes)]
        text = ", ".join([text, *modifiers])
        prompts.setdefault(text, EvaluationPrompt(text, category, cluster=subject.name))
    return list(prompts.values())


def _modifier(attribute: str, count: int, generator: torch.Generator) -> str:
    """Return a modifier for one of the attribute's values, which take turns."""
    values = ATTRIBUTES[attribute]
    wordings = values[count % len(values)].modifiers
    return wordings[int(torch.randint(len(wordings), (), generator=generator))]


class AskedFor:
    """The share of what the user prompt names that a reader sees in the image."""

    def __init__(self, name: str, reader: Reader, factor: Factor = "all") -> None:
        """factor: a key of FACTORS_OF."""
        self.name = name
        self.reader = reader
        self.factors = FACTORS_OF[factor]

    def __call__(self, user_prompts: Sequence[str], images: Images) -> Tensor:
        """Return scores, float32 `(n,)` in 0..1. Raises InputError for a prompt that names none of the factors."""
        indices = [FACTORS.index(factor) for factor in self.factors]
        values = [[parse(prompt).values[index] for index in indices] for prompt in user_prompts]
        named = torch.tensor([[-1 if value is None else value for value in row] for row in values])
        if not (named >= 0).any(1).all():
            lacking = user_prompts[int((named < 0).all(1).nonzero()[0])]
            what = ", ".join(self.factors)
            raise InputError(f"scorer {self.name!r}: expected prompts that name one of {what}, got {lacking!r}")
        read = self.reader.read(images)
        seen = torch.stack([read[index].argmax(1) for index in indices], 1)
        return ((seen == named) & (named >= 0)).sum(1) / (named >= 0).sum(1)


def make_asked_for(name: str, context: Context, *, factor: Factor = "all") -> Reward:
    """The kind `asked-for`. factor: the factors that are checked."""
    return AskedFor(name, judges(context).truth.reader, factor)
