"""A small reward network: convolutional features of the image against a bag of the prompt's tokens."""

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
from .tokenized import TokenizedModel

WORD_REPEATS, TOKEN_REPEATS = 4, 16
"""How often the same word, and the same token, is read of a prompt. The bag's sum grows with each repetition, and with
it the score of any image, far beyond what training has seen: there no prompt has a word more than three times."""
_WORD = re.compile(r"([^\W_]+)[\W_]*")


class PromptRewardConfig(PreTrainedConfig):
    """Sizes of a PromptReward, its name, and the mean and deviation that its scores are given."""

    model_type = "prip_prompt_reward"

    name: str = "reward"
    vocab_size: int = 1024
    trunk_width: int = 128
    width: int = 256
    grid: int = 16
    score_mean: float = 0.0
    score_deviation: float = 1.0


class PromptReward(TokenizedModel, TrunkModel):
    """A `Reward`: how well people who typed the user prompt like the image."""

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
        """What tables call this reward."""
        return self.config.name

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Raw scores: images (n, 3, size, size) in 0..255 and the prompts' tokens (n, length) to float (n,)."""
        return self.score_features(self.trunk(images).flatten(1), input_ids, attention_mask)

    def score_features(self, features: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Raw scores, float (n,), of images whose flattened trunk features (n, trunk_width * grid) are known."""
        image = self.image(features)
        mask = attention_mask[..., None].to(image.dtype)
        text = self.text((self.tokens(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1).sqrt())
        return self.score(torch.cat([image, text, image * text], 1))[:, 0]

    def encode(self, user_prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of the prompts, each long (n, length), on the model's device.

        A word is read up to WORD_REPEATS times, a token (of words that are spelled, letters) up to TOKEN_REPEATS times.
        """
        assert self.tokenizer is not None
        texts = [without_repeats(user_prompt.lower()) for user_prompt in user_prompts]
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", verbose=False)
        input_ids, mask = batch["input_ids"], batch["attention_mask"]
        mask = mask * (occurrences(input_ids) <= TOKEN_REPEATS)
        return input_ids.to(self.device), mask.to(self.device)

    @torch.no_grad()
    def __call__(self, user_prompts: Sequence[str], images: Images, batch_size: int = 256) -> Tensor:
        """Scores, float32 (n,) on the CPU."""
        scores = [
            self.forward(images[i : i + batch_size].to(self.device), *self.encode(user_prompts[i : i + batch_size]))
            for i in range(0, len(user_prompts), batch_size)
        ]
        return self._scaled(torch.cat(scores).float().cpu() if scores else torch.zeros(0))

    def scores_with_gradient(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Scores, float32 (n,), differentiable by float images in 0..255. Raises InputError unless there is one for
        each prompt."""
        check_float_pairs(len(user_prompts), images)
        return self._scaled(self.forward(images.to(self.device), *self.encode(user_prompts)).float())

    def _scaled(self, raw: Tensor) -> Tensor:
        return self.config.score_mean + self.config.score_deviation * raw


def without_repeats(text: str) -> str:
    """Returns a text less each word, with what follows it up to the next, that stands there for more than the
    WORD_REPEATS-th time."""
    seen: Counter[str] = Counter()

    def kept(found: re.Match[str]) -> str:
        seen[found[1]] += 1
        return found[0] if seen[found[1]] <= WORD_REPEATS else ""

    return _WORD.sub(kept, text)


def occurrences(ids: Tensor) -> Tensor:
    """Returns for each of the ids, long (n, length), the how manieth of its kind it is in its row, from 1 on."""
    ordered, order = ids.sort(dim=1, stable=True)
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    first = torch.ones_like(ids, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = torch.where(first, places, 0).cummax(1).values
    return torch.zeros_like(ids).scatter(1, order, places - starts + 1)
