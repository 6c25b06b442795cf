"""The miniature's compositional check: does refinement keep what the user has named, or paint over it?

GenEval asks whether an image shows the objects, colours and positions of its prompt. In the miniature a user can name a
subject, a place and values of the attributes; reader B tells which of them an image shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

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

from .miniature import SPLITS, judges
from .registry import Context, EvaluationPrompt

FACTORS_OF = {"all": FACTORS, "subject": ("subject",), "place": ("place",), "attributes": tuple(ATTRIBUTES)}
"""What a scorer looks at, by the option `factor`."""
PAIR = "pair"
"""Category of the prompts that name two attributes; those that name one have its name."""


def make_prompts(
    name: str, context: Context, *, split: str = "test", per_attribute: int = 40, pairs: int = 80
) -> list[EvaluationPrompt]:
    """The kind `miniature-compositional`: user prompts that name a subject, a place and one or two attributes.

    "a picture of a cat by the sea, moonlight". Subject and place are those of a split that training has not seen, the
    values of an attribute come equally often, those that nobody prefers among them. The category is the attribute that
    is named, or `pair`; each subject is a cluster. per_attribute: prompts for each attribute. pairs: prompts with two.
    """
    if split not in SPLITS:
        raise InputError(f"prompts: split must be one of {', '.join(SPLITS)}, it is {split!r}")
    for option, value in (("per_attribute", per_attribute), ("pairs", pairs)):
        check_whole(f"prompts: {option}", value, 0)
    couples = list(combinations(ATTRIBUTES, 2))
    asked: list[tuple[str, tuple[str, ...], int]]
    asked = [(attribute, (attribute,), count) for attribute in ATTRIBUTES for count in range(per_attribute)]
    asked += [(PAIR, couples[count % len(couples)], count // len(couples)) for count in range(pairs)]
    generator = random_generator("compositional", context.seed, split)
    places = split_combinations(split)
    order: list[int] = []
    found: dict[str, EvaluationPrompt] = {}
    for category, attributes, count in asked:
        order = order or torch.randperm(len(places), generator=generator).tolist()
        subject, place = places[order.pop()]
        text = user_prompt(subject, place, generator)
        modifiers = [_modifier(attribute, count + step, generator) for step, attribute in enumerate(attributes)]
        text = ", ".join([text, *modifiers])
        found.setdefault(text, EvaluationPrompt(text, category, cluster=subject.name))
    return list(found.values())


def _modifier(attribute: str, count: int, generator: torch.Generator) -> str:
    """Returns a modifier for one of the attribute's values, which take turns."""
    values = ATTRIBUTES[attribute]
    wordings = values[count % len(values)].modifiers
    return wordings[int(torch.randint(len(wordings), (), generator=generator))]


class AskedFor:
    """The share of what the user prompt names that a reader sees in the image."""

    def __init__(self, name: str, reader: Reader, factor: str = "all") -> None:
        """factor: what is looked at, one of FACTORS_OF."""
        if factor not in FACTORS_OF:
            raise InputError(f"scorer {name!r}: factor must be one of {', '.join(FACTORS_OF)}, it is {factor!r}")
        self.name = name
        self.reader = reader
        self.factor = factor

    def __call__(self, user_prompts: Sequence[str], images: Images) -> Tensor:
        """float32 (n,) in 0..1. Raises InputError for a prompt that names nothing of what is looked at."""
        places = [FACTORS.index(factor) for factor in FACTORS_OF[self.factor]]
        named = torch.tensor(
            [
                [-1 if (value := parse(prompt).values[place]) is None else value for place in places]
                for prompt in user_prompts
            ]
        )
        if not (named >= 0).any(1).all():
            lacking = user_prompts[int((named < 0).all(1).nonzero()[0])]
            what = ", ".join(FACTORS_OF[self.factor])
            raise InputError(f"scorer {self.name!r}: wanted prompts that name one of {what}, got {lacking!r}")
        read = self.reader.read(images)
        seen = torch.stack([read[place].argmax(1) for place in places], 1)
        return ((seen == named) & (named >= 0)).sum(1) / (named >= 0).sum(1)


def make_asked_for(name: str, context: Context, *, factor: str = "all") -> Reward:
    """The kind `asked-for`. factor: all, subject, place or attributes."""
    return AskedFor(name, judges(context).truth.reader, factor)
