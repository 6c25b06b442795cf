"""The refiners that are measured beside the trained ones: none and random, and how a trained one is loaded for it."""

from __future__ import annotations

from collections.abc import Sequence

from prip.processing import PripProcessor
from prip.protocols import PromptRefiner

from ..parts import Parts, load_refiner


def with_modifiers(user_prompt: str, modifiers: Sequence[str]) -> str:
    """Return the user prompt continued by modifiers as the refiner would continue it; as it is when there are none."""
    return PripProcessor.join(user_prompt, " " + ", ".join(modifiers)) if modifiers else user_prompt


class PlainRefiner:
    """`none`: the user prompt as it is."""

    name = "none"

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return the user prompts."""
        return list(user_prompts)


class RandomRefiner:
    """`random`: as many random modifiers, good and harmful alike, as system prompts of the miniature hold."""

    name = "random"

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return each user prompt with modifiers that are a function of the prompt and its seed."""
        from prip.miniature.prompts import sample_modifiers
        from prip.randomness import random_generator

        return [
            with_modifiers(prompt, sample_modifiers(random_generator("random refiner", prompt, seed)))
            for prompt, seed in zip(user_prompts, seeds, strict=True)
        ]


def make_refiners(names: Sequence[str], parts: Parts, device: str) -> list[PromptRefiner]:
    """Return the refiners of these names in this order, loading `warmup` and `rl`; `best` is made by the search."""
    made: list[PromptRefiner] = []
    for name in names:
        if name == "none":
            made.append(PlainRefiner())
        elif name == "random":
            made.append(RandomRefiner())
        elif name == "warmup":
            made.append(load_refiner(parts.warmup_encoder, parts.decoder, name, device))
        elif name == "rl":
            made.append(load_refiner(parts.encoder, parts.decoder, name, device))
    return made
