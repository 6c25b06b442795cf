"""CLIP score: the cosine of image and user prompt, by any CLIP in transformers' format; mostly within 0.1 and 0.4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from .clip_scorer import VIT_L_14, ClipScorer, clip_folder, inside
from .clip_text import clean_text
from .preprocessing import clip_pixels

PUBLISHED = "openai/clip-vit-large-patch14"


class ClipScoreConfig(PreTrainedConfig):
    """Size of a ClipScore: `clip` holds the fields of a CLIPConfig, None means OpenAI's ViT-L/14."""

    model_type = "prip_clip_score"

    name: str = "clip-score"
    clip: dict | None = None


class ClipScore(ClipScorer):
    """A `Reward`: the plain cosine."""

    config_class = ClipScoreConfig
    base_model_prefix = "clip_score"
    published_clip = VIT_L_14

    def pixels(self, images: Tensor, edge: int) -> Tensor:
        """As openai/CLIP and open_clip prepare them."""
        return clip_pixels(images, edge)

    def clean(self, user_prompt: str) -> str:
        """As openai/CLIP and open_clip do."""
        return clean_text(user_prompt)

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """The cosine, float32 (n,)."""
        return self.cosines(user_prompts, images)

    @classmethod
    def from_original(
        cls, place: str = PUBLISHED, revision: str | None = None, dtype: torch.dtype | None = None
    ) -> ClipScore:
        """Reads a CLIPModel from a folder or the Hub. Raises CheckpointError where there is none."""
        fields, weights, folder = clip_folder(place, revision)
        return cls.from_weights(ClipScoreConfig(clip=fields), inside("clip", weights), folder, dtype)
