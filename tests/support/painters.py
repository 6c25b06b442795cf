"""A generator and a judge of the miniature that are exact and count what they do."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prip.miniature.scene import parse
from prip.miniature.vocabulary import ATTRIBUTES

GOOD = [values[1].modifiers[0] for values in ATTRIBUTES.values()]
"""A modifier for the second value of each attribute, which the judge likes"""


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
