"""HPSv2 (Wu et al., 2023): the cosine of a CLIP ViT-H-14 that was trained on people's choices, times 100.

Its two releases, v2.0 and v2.1, are two sets of weights whose scores cannot be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from ..loading.published_files import find_file, read_weights
from .clip_scorer import VIT_H_14, ClipScorer, inside
from .clip_text import clean_text
from .open_clip_weights import from_open_clip
from .preprocessing import padded_pixels

PUBLISHED = "xswu/HPSv2"
FILES = {"hps-v2.0": "HPS_v2_compressed.pt", "hps-v2.1": "HPS_v2.1_compressed.pt"}


class HpsV2Config(PreTrainedConfig):
    """Size of an HpsV2: `name` tells the release, `clip` holds the fields of a CLIPConfig, None means ViT-H-14."""

    model_type = "prip_hps_v2"

    name: str = "hps-v2.0"
    clip: dict | None = None


class HpsV2(ClipScorer):
    """A `Reward`: HPSv2, in percent as its paper prints it."""

    config_class = HpsV2Config
    base_model_prefix = "hps_v2"
    published_clip = VIT_H_14

    def pixels(self, images: Tensor, edge: int) -> Tensor:
        """As the package hpsv2 prepares them."""
        return padded_pixels(images, edge)

    def clean(self, user_prompt: str) -> str:
        """As open_clip does."""
        return clean_text(user_prompt)

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """100 times the cosine, float32 (n,)."""
        return 100 * self.cosines(user_prompts, images)

    @classmethod
    def from_original(
        cls,
        place: str = PUBLISHED,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        release: str = "hps-v2.0",
        clip: dict | None = None,
    ) -> HpsV2:
        """Reads the authors' file: `place` is that file, a folder with it, or a Hub id. Errors as in `find_file`.

        release: one of FILES. clip: the fields of a CLIPConfig, None means ViT-H-14.
        """
        config = HpsV2Config(name=release, clip=clip)
        path = find_file(place, (FILES[release],), revision)
        return cls.from_weights(config, inside("clip", from_open_clip(read_weights(path))), path, dtype)
