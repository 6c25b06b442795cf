"""PickScore (Kirstain et al., 2023): the logit of a CLIP ViT-H-14 that was trained on people's choices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from .clip_scorer import VIT_H_14, ClipScorer, clip_folder, inside
from .preprocessing import processor_pixels

PUBLISHED = "yuvalkirstain/PickScore_v1"


class PickScoreConfig(PreTrainedConfig):
    """Size of a PickScore: `clip` holds the fields of a CLIPConfig, None means ViT-H-14."""

    model_type = "prip_pick_score"

    name: str = "pick-score"
    clip: dict | None = None


class PickScore(ClipScorer):
    """A `Reward`: the cosine times CLIP's own logit scale, about 100."""

    config_class = PickScoreConfig
    base_model_prefix = "pick_score"
    published_clip = VIT_H_14

    def pixels(self, images: Tensor, edge: int) -> Tensor:
        """As transformers' CLIPProcessor prepares them, which the authors use."""
        return processor_pixels(images, edge)

    def clean(self, user_prompt: str) -> str:
        """As it is: transformers' CLIPTokenizer mends nothing."""
        return user_prompt

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """The logit, float32 (n,)."""
        return self.clip.logit_scale.float().exp() * self.cosines(user_prompts, images)

    @classmethod
    def from_original(
        cls, place: str = PUBLISHED, revision: str | None = None, dtype: torch.dtype | None = None
    ) -> PickScore:
        """Reads the authors' CLIPModel from a folder or the Hub. Raises CheckpointError where there is none."""
        fields, weights, folder = clip_folder(place, revision)
        return cls.from_weights(PickScoreConfig(clip=fields), inside("clip", weights), folder, dtype)
