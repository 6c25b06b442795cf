"""A small reward network: compares convolutional image features with a bag of the prompt's tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ..modeling.conv_trunk import ConvTrunk, TrunkModel
from ..protocols import Images
from .preprocessing import check_float_pairs
from .scorer import TokenizedModel

WORD_REPEATS, TOKEN_REPEATS = 4, 16
"""How many repetitions of a word, and of a token, are read. Without a limit, repeating a word would grow the bag's sum,
and with it any image's score, far beyond training, where no prompt has a word more than three times."""
_WORD = re.compile(r"([^\W_]+)[\W_]*")


class PromptRewardConfig(PreTrainedConfig):
    """Sizes and name of a PromptReward, and the mean and deviation of its scores."""

    model_type = "prip_prompt_reward"

    name: str = "reward"
    vocab_size: int = 1024
    trunk_width: int = 128
    width: int = 256
    grid: int = 16
    score_mean: float = 0.0
    score_deviation: float = 1.0


class PromptReward(TokenizedModel, TrunkModel):
    """A `Reward` of the miniature: how well users who typed the prompt like the image."""

    config_class = PromptRewardConfig
    base_model_prefix = "prompt_reward"

    def __init__(self, config: PromptRewardConfig) -> None:
        super().__init__(config)
        self.trunk = ConvTrunk(config.trunk_width)
        self.image = nn.Sequential(nn.Linear(config.trunk_width * config.grid, config.width), nn.SiLU())
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        width = config.width
        self.text = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.score = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, 1))
        self.tokenizer = None
        self.post_init()

    @property
    def name(self) -> str:
        """Name of this reward in tables."""
        return self.config.name

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return raw scores, float `(n,)`, of images `(n, 3, size, size)` in 0..255 and prompt tokens `(n, length)`."""
        return self.score_features(self.trunk(images).flatten(1), input_ids, attention_mask)

    def score_features(self, features: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return raw scores, float `(n,)`, from flattened trunk features `(n, trunk_width * grid)`."""
        image = self.image(features)
        mask = attention_mask[..., None].to(image.dtype)
        text = self.text((self.tokens(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1).sqrt())
        return self.score(torch.cat([image, text, image * text], 1))[:, 0]

    def encode(self, user_prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token ids and mask of the prompts, each int64 `(n, length)`, on the model's device.

        Words beyond WORD_REPEATS repetitions are removed, tokens beyond TOKEN_REPEATS are masked out.
        """
        assert self.tokenizer is not None
        texts = [without_repeats(user_prompt.lower()) for user_prompt in user_prompts]
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", verbose=False)
        input_ids, mask = batch["input_ids"], batch["attention_mask"]
        mask = mask * (occurrences(input_ids) <= TOKEN_REPEATS)
        return input_ids.to(self.device), mask.to(self.device)

    @torch.no_grad()
    def __call__(self, user_prompts: Sequence[str], images: Images, batch_size: int = 256) -> Tensor:
        """Return scores, float32 `(n,)` on the CPU, of uint8 images, one per prompt."""
        scores = [
            self.forward(images[i : i + batch_size].to(self.device), *self.encode(user_prompts[i : i + batch_size]))
            for i in range(0, len(user_prompts), batch_size)
        ]
        return self._scaled(torch.cat(scores).float().cpu() if scores else torch.zeros(0))

    def scores_with_gradient(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return scores, float32 `(n,)`, that are differentiable with respect to float images in 0..255.

        Raises:
            InputError: If images are not floats, or not one per prompt.
        """
        check_float_pairs(len(user_prompts), images)
        return self._scaled(self.forward(images.to(self.device), *self.encode(user_prompts)).float())

    def _scaled(self, raw: Tensor) -> Tensor:
        return self.config.score_mean + self.config.score_deviation * raw


def without_repeats(text: str) -> str:
    """Remove each word beyond its WORD_REPEATS-th occurrence, with the punctuation that follows it."""
    seen: Counter[str] = Counter()

    def keep(match: re.Match[str]) -> str:
        seen[match[1]] += 1
        return match[0] if seen[match[1]] <= WORD_REPEATS else ""

    return _WORD.sub(keep, text)


def occurrences(ids: Tensor) -> Tensor:
    """Count, for each id in `(n, length)`, its occurrences in the row up to and including it (1, 2, ...)."""
    ordered, order = ids.sort(dim=1, stable=True)
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    first = torch.ones_like(ids, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = torch.where(first, positions, 0).cummax(1).values
    return torch.zeros_like(ids).scatter(1, order, positions - starts + 1)
