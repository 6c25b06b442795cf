"""Concepts suggested for a prompt: the likely and specific ones that fit it and each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..control.attributes import named_values
from ..options import Bounds, check_number, check_whole
from .concepts import concept_names, named_concepts
from .preference_prior import PreferencePrior
from .rules import barred_by, clash, contradicts_values, least_lift, never_suggested


@dataclass(frozen=True)
class SuggestOptions:
    """How many concepts are suggested, and how specific to the prompt."""

    count: int = 5
    """Largest number of concepts."""
    lift_exponent: float = 0.6
    """Concepts are ranked by p x lift^this, where lift is p over the concept's base rate; 0 ranks by p alone."""
    least_support: int = 4
    """Series of real prompts that must have added a concept."""

    def __post_init__(self) -> None:
        check_whole("count", self.count, 1)
        check_whole("least_support", self.least_support, 0)
        check_number("lift_exponent", self.lift_exponent, Bounds(0, 10))


def suggest(
    prior: PreferencePrior, user_prompts: Sequence[str], options: SuggestOptions | None = None
) -> list[list[str]]:
    """Return the concepts suggested for each prompt, in the order in which users write them."""
    return suggest_from(prior(user_prompts), prior, user_prompts, options)


def suggest_from(
    probabilities: NDArray[np.float32],
    prior: PreferencePrior,
    user_prompts: Sequence[str],
    options: SuggestOptions | None = None,
) -> list[list[str]]:
    """Return what `suggest` does for given probabilities `(prompts, concepts)`, for example those of any prompt."""
    options = options or SuggestOptions()
    lifts = probabilities / prior.base
    usable = prior.support >= options.least_support
    usable &= ~np.isin(concept_names(), list(never_suggested()))
    needed = np.array([least_lift().get(name, 0.0) for name in concept_names()])
    scores = np.where(usable & (lifts >= needed), probabilities * lifts**options.lift_exponent, -1)
    return [_chosen(row, prompt, options.count, prior) for row, prompt in zip(scores, user_prompts, strict=True)]


def _chosen(scores: NDArray[np.float32], user_prompt: str, count: int, prior: PreferencePrior) -> list[str]:
    """Return the concepts of the highest scores that contradict neither the prompt nor each other."""
    names, chosen = concept_names(), list[int]()
    concepts, values = set(named_concepts(user_prompt)), set(named_values(user_prompt))
    barred = barred_by(user_prompt)
    for index in np.argsort(-scores, kind="stable"):
        if scores[index] < 0 or len(chosen) == count:
            break
        name = names[index]
        if name not in barred and not clash(name, concepts) and not contradicts_values(name, values):
            chosen.append(int(index))
            concepts.add(name)
            values |= named_values(name)
    return [names[index] for index in sorted(chosen, key=lambda index: float(prior.position[index]))]
