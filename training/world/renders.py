"""Renders with captions: the training data of the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from prip.miniature.prompts import SEEN_SPLITS, caption
from prip.miniature.renderer import glyph_masks, render, sample_jitter
from prip.miniature.scene import FACTORS, parse, sample_scene
from prip.randomness import random_generator

OPEN = -100
"""Label of a factor that a prompt leaves open, ignored by cross_entropy."""
CHUNK = 250


@dataclass(frozen=True)
class Renders:
    """Captions and their renders."""

    captions: list[str]
    scenes: Tensor
    """What the images show, long (n, factors)."""
    images: Tensor
    """uint8 (n, 3, size, size)."""
    subject_masks: Tensor
    """The subject's share of each pixel, uint8 (n, 1, size, size)."""

    def __len__(self) -> int:
        return len(self.captions)

    def accuracy(self, read: Sequence[Tensor]) -> dict[str, float]:
        """Return the mean accuracy over the factors, and that of each; `read` has the logits or probabilities of each
        factor, (n, values), on any device."""
        right = {
            name: float((found.cpu().argmax(1) == self.scenes[:, i]).float().mean())
            for i, (name, found) in enumerate(zip(FACTORS, read, strict=True))
        }
        return {"accuracy": sum(right.values()) / len(right), **right}


def make_renders(
    count: int, image_size: int, *key: object, splits: tuple[str, ...] = SEEN_SPLITS, progress: bool = False
) -> Renders:
    """Draw `count` captions with combinations of `splits`, as a function of the key."""
    captions, scenes, jitter = [], [], []
    for index in range(count):
        generator = random_generator("renders", *key, index)
        text = caption(generator, splits)
        scene = sample_scene(parse(text), generator)
        captions.append(text)
        scenes.append(scene)
        jitter.append(sample_jitter(generator))
    all_scenes, all_jitter = torch.tensor(scenes), torch.tensor(jitter)
    images, masks = [], []
    for start in tqdm(range(0, count, CHUNK), desc="drawing", unit_scale=CHUNK, unit="render", disable=not progress):
        chunk = slice(start, start + CHUNK)
        images.append(render(all_scenes[chunk], all_jitter[chunk], image_size))
        masks.append(glyph_masks(all_scenes[chunk], all_jitter[chunk], image_size))
    return Renders(captions, all_scenes, torch.cat(images), torch.cat(masks))


def requested(prompts: list[str]) -> Tensor:
    """Return what prompts ask for, long (n, factors), with OPEN for factors left open."""
    return torch.tensor([[OPEN if value is None else value for value in parse(p).values] for p in prompts])


def augment(images: Tensor) -> Tensor:
    """Return images (n, 3, size, size) as float in 0..255, each with pixel noise of a random strength."""
    strength = 20 * torch.rand(len(images), 1, 1, 1)
    return (images.float() + strength * torch.randn(images.shape)).clamp(0, 255)
