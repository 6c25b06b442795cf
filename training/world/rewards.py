"""Rewards that learn from noisy pairs: of two images for one user prompt, which one would the user choose?"""

from __future__ import annotations

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prip.miniature.preference import scene_preference
from prip.miniature.prompts import user_prompt
from prip.miniature.reader import Reader
from prip.miniature.scene import parse, random_generator
from prip.miniature.vocabulary import PLACES, SUBJECTS
from prip.rewards.prompt_reward import PromptReward, PromptRewardConfig

from ..seeds import derive_seed
from ..settings import WorldSettings
from ..tokenizers import train_encoder_tokenizer
from .part import Part, part_folder
from .renders import augment

MISMATCH = 0.15
"""Share of the pairs in which one image shows another subject than the prompt's."""


class RewardPart(Part):
    """Bradley-Terry loss on pairs that the true preference has labelled, with noise."""

    monitor = "pairs_right"

    def __init__(
        self, name: str, settings: WorldSettings, trunk: str, score_mean: float, score_deviation: float
    ) -> None:
        super().__init__(name, settings)
        self.draw(settings.renders)
        prompts = [user_prompt(s, p, random_generator(name, i)) for s in SUBJECTS for p in PLACES for i in range(6)]
        tokenizer = train_encoder_tokenizer(prompts, 600)
        self.model = PromptReward(
            PromptRewardConfig(
                name=name,
                vocab_size=len(tokenizer),
                trunk_width=settings.trunk_width,
                grid=(settings.image_size // 8) ** 2,
                score_mean=score_mean,
                score_deviation=score_deviation,
            )
        )
        self.model.tokenizer = tokenizer
        trained = Reader.from_pretrained(part_folder(settings, trunk))
        self.model.trunk.load_state_dict(trained.trunk.state_dict())
        self.by_subject = {
            split: [torch.nonzero(renders.scenes[:, 0] == index)[:, 0].tolist() for index in range(len(SUBJECTS))]
            for split, renders in (("train", self.renders), ("dev", self.dev_renders))
        }

    def pairs(self, split: str, count: int, key: int) -> tuple[list[str], list[int], list[int]]:
        """User prompts, and for each the indices of two renders of its subject."""
        chance = random.Random(key)
        prompts, first, second = [], [], []
        rows = self.by_subject[split]
        renders = self.renders if split == "train" else self.dev_renders
        known = [index for index, own in enumerate(rows) if len(own) > 1]
        for number in range(count):
            subject = chance.choice(known)
            a, b = chance.sample(rows[subject], 2)
            if chance.random() < MISMATCH:
                b = chance.randrange(len(renders))
            place = PLACES[int(renders.scenes[a, 1])] if chance.random() < 0.7 else None
            prompts.append(user_prompt(SUBJECTS[subject], place, random_generator("pair", key, number)))
            first.append(a)
            second.append(b)
        return prompts, first, second

    def label(self, split: str, prompts: list[str], indices: list[int]) -> Tensor:
        """The true preference of each render for its prompt, float (n,)."""
        asked = [parse(prompt) for prompt in prompts]
        place = [-1 if request["place"] is None else int(request["place"]) for request in asked]
        renders = self.renders if split == "train" else self.dev_renders
        subject = torch.tensor([int(request["subject"] or 0) for request in asked])
        return scene_preference(subject, torch.tensor(place), renders.scenes[indices])

    def batch_at(self, step: int) -> tuple[list[str], list[int], list[int]]:
        """Pairs of the step: as many images as the other parts see."""
        return self.pairs("train", self.loop.batch_size // 2, derive_seed(self.settings.seed, self.stage, "pairs", step))

    def training_step(self, batch: tuple[list[str], list[int], list[int]], step: int) -> Tensor:
        prompts, first, second = batch
        gap = self.label("train", prompts, first) - self.label("train", prompts, second)
        chosen = torch.bernoulli(torch.sigmoid(gap / self.settings.label_noise)).to(self.device)
        images = augment(self.renders.images[first + second]).to(self.device)
        scores = self.model.forward(images, *self.model.encode(prompts + prompts))
        margin = scores[: len(prompts)] - scores[len(prompts) :]
        loss = F.binary_cross_entropy_with_logits(margin, chosen)
        self.log("loss", loss, prog_bar=True)
        return loss

    def evaluate(self) -> dict[str, float]:
        """Share of dev pairs that are ordered as by the truth, and the correlation with it."""
        prompts, first, second = self.pairs("dev", 1000, derive_seed(self.settings.seed, self.stage, "dev"))
        images = self.dev_renders.images
        scores = torch.stack([self.model(prompts, images[first]), self.model(prompts, images[second])])
        truth = torch.stack([self.label("dev", prompts, first), self.label("dev", prompts, second)])
        right = ((scores[0] > scores[1]) == (truth[0] > truth[1])).float().mean()
        correlation = torch.corrcoef(torch.stack([scores.flatten(), truth.flatten()]))[0, 1]
        return {"pairs_right": float(right), "correlation": float(correlation)}

    def export(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
