"""Rewards trained on noisy pairs: which of two images a user would choose for a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prip.miniature.preference import scene_preference
from prip.miniature.prompts import split_of, user_prompt
from prip.miniature.reader import Reader
from prip.miniature.vocabulary import PLACES, SUBJECTS
from prip.randomness import random_generator
from prip.rewards.prompt_reward import PromptReward, PromptRewardConfig

from ..from_scratch import train_encoder_tokenizer
from ..runs.seeds import derive_seed
from ..settings import LoopSettings
from .part import Part
from .renders import Renders, augment

MISMATCH = 0.4
"""Share of pairs whose second image may show another subject than the prompt's."""
PLACE_NAMED = 0.7
"""Share of prompts that name a place."""
OPEN_PLACE = -1
"""Place index of a prompt without a place."""
PHRASINGS = 6
"""User prompts per subject and place."""


class RewardPart(Part):
    """Bradley-Terry loss on pairs labeled by the true preference, with noise.

    The trunk is that of a trained reader and frozen, so the features of all renders are computed once.
    """

    monitor = "pairs_right"
    trained = ("model.image.*", "model.tokens.*", "model.text.*", "model.score.*")

    score_mean: ClassVar[float] = 0.0
    score_deviation: ClassVar[float] = 1.0
    """Shift and scale of the scores."""

    def build(self) -> None:
        settings = self.settings
        self.draw(settings.renders)
        rows = [
            (s, p, i) for s in range(len(SUBJECTS)) for p in (*range(len(PLACES)), OPEN_PLACE) for i in range(PHRASINGS)
        ]
        self.asked = torch.tensor([(s, p if self.may_name(s, p) else OPEN_PLACE, i) for s, p, i in rows])
        prompts = [
            user_prompt(SUBJECTS[s], None if p == OPEN_PLACE else PLACES[p], random_generator(self.name, s, p, i))
            for s, p, i in self.asked.tolist()
        ]
        self.prompts = prompts
        tokenizer = train_encoder_tokenizer(prompts, 600)
        self.model = PromptReward(
            PromptRewardConfig(
                name=self.name,
                vocab_size=len(tokenizer),
                trunk_width=settings.trunk_width,
                grid=(settings.image_size // 8) ** 2,
                score_mean=self.score_mean,
                score_deviation=self.score_deviation,
            )
        )
        self.model.tokenizer = tokenizer
        reader = Reader.from_pretrained(self.start_folder)
        self.model.trunk.load_state_dict(reader.trunk.state_dict())
        self.model.image[0].load_state_dict(reader.head[1].state_dict())
        self.features = self.trunk_features(self.renders)
        self.tokens, self.token_mask = self.model.encode(prompts)

    def may_name(self, subject: int, place: int) -> bool:
        """Return whether prompts may name a combination, by index."""
        return place != OPEN_PLACE and split_of(SUBJECTS[subject], PLACES[place]) in self.splits

    @property
    def loop(self) -> LoopSettings:
        return self.settings.reward_loop

    @torch.no_grad()
    def trunk_features(self, renders: Renders) -> Tensor:
        """Return the flattened features of all renders with pixel noise, float (renders, trunk_width * grid)."""
        chunks = renders.images.split(256)
        return torch.cat([self.model.trunk(augment(chunk)).flatten(1) for chunk in chunks])

    def pairs(self, renders: Renders, count: int, key: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return indices of user prompts and of two renders for each, all long (count,).

        The first render shows the prompt's subject, and its place if named; the second shows that subject or, in a
        share of the pairs, any.
        """
        chance = torch.Generator().manual_seed(key)
        first = torch.randint(len(renders), (count,), generator=chance)
        subject, place = renders.scenes[first, 0], renders.scenes[first, 1]
        place = torch.where(torch.rand(count, generator=chance) < PLACE_NAMED, place, OPEN_PLACE)
        phrasing = torch.randint(PHRASINGS, (count,), generator=chance)
        prompts = (subject * (len(PLACES) + 1) + place % (len(PLACES) + 1)) * PHRASINGS + phrasing
        by_subject = renders.scenes[:, 0].argsort(stable=True)
        sizes = renders.scenes[:, 0].bincount(minlength=len(SUBJECTS))
        place_among_them = (torch.rand(count, generator=chance) * sizes[subject]).long()
        alike = by_subject[(sizes.cumsum(0) - sizes)[subject] + place_among_them]
        mismatch = torch.rand(count, generator=chance) < MISMATCH
        return prompts, first, torch.where(mismatch, torch.randint(len(renders), (count,), generator=chance), alike)

    def truth(self, renders: Renders, prompts: Tensor, rows: Tensor) -> Tensor:
        """Return the true preference of renders for user prompts, both by index: float (n,)."""
        return scene_preference(self.asked[prompts, 0], self.asked[prompts, 1], renders.scenes[rows])

    def batch_at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pairs of the step."""
        return self.pairs(
            self.renders, self.loop.batch_size, derive_seed(self.settings.seed, self.stage, "pairs", step)
        )

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], step: int) -> Tensor:
        prompts, first, second = (rows.cpu() for rows in batch)
        gap = self.truth(self.renders, prompts, first) - self.truth(self.renders, prompts, second)
        chosen = torch.bernoulli(torch.sigmoid(gap / self.settings.label_noise)).to(self.device)
        text = self.tokens[prompts].to(self.device), self.token_mask[prompts].to(self.device)
        scores = [self.model.score_features(self.features[rows].to(self.device), *text) for rows in (first, second)]
        loss = F.binary_cross_entropy_with_logits(scores[0] - scores[1], chosen)
        self.log("loss", loss, prog_bar=True)
        return loss

    def evaluate(self) -> dict[str, float]:
        """Return the share of dev pairs ordered as by the true preference, and the correlation with it."""
        renders = self.dev_renders
        prompts, first, second = self.pairs(renders, 1000, derive_seed(self.settings.seed, self.stage, "dev"))
        texts = [self.prompts[index] for index in prompts.tolist()]
        scores = torch.stack([self.model(texts, renders.images[rows]) for rows in (first, second)])
        truth = torch.stack([self.truth(renders, prompts, rows) for rows in (first, second)])
        right = ((scores[0] > scores[1]) == (truth[0] > truth[1])).float().mean()
        correlation = torch.corrcoef(torch.stack([scores.flatten(), truth.flatten()]))[0, 1]
        return {"pairs_right": float(right), "correlation": float(correlation)}

    def export(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


class HpsLikeRewardPart(RewardPart):
    """A reward on the scale of HPSv2's scores, so that sums of rewards must be standardised."""

    score_mean = 27.0
    score_deviation = 2.0
