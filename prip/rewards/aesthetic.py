"""LAION's aesthetic predictor (sac+logos+ava1-l14-linearMSE): how pretty an image is, mostly within 1 and 10.

It does not read the user prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, PreTrainedConfig

from ..loading.published_files import find_file, read_weights
from .clip_scorer import VIT_L_14, clip_folder, inside
from .linear_head import head_name, linear_head, read_head
from .preprocessing import clip_pixels
from .scorer import Scorer

PUBLISHED = "trl-lib/ddpo-aesthetic-predictor"
PUBLISHED_CLIP = "openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41"
FILES = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")
"""The head's file: what the Hub calls it, and what its authors do."""

_OF_TEXT = ("text_model.", "text_projection.", "logit_scale")


class AestheticConfig(PreTrainedConfig):
    """Size of an Aesthetic: `vision` holds the fields of a CLIPVisionConfig, None means OpenAI's ViT-L/14; `head` the
    widths within the head, None means the published ones."""

    model_type = "prip_aesthetic"

    name: str = "aesthetic"
    vision: dict | None = None
    head: list[int] | None = None


class Aesthetic(Scorer):
    """A `Reward`: a linear head on the normalised image features of a CLIP ViT-L/14."""

    config_class = AestheticConfig
    base_model_prefix = "aesthetic"
    _keep_in_fp32_modules_strict = ["head"]

    def __init__(self, config: AestheticConfig) -> None:
        super().__init__(config)
        vision: Any = CLIPVisionConfig(**(config.vision or VIT_L_14["vision_config"]))
        self.clip = CLIPVisionModelWithProjection(vision)
        self.edge: int = vision.image_size
        self.head = linear_head(vision.projection_dim, config.head)
        self.post_init()

    @classmethod
    def from_config(cls, config: AestheticConfig) -> Aesthetic:
        """Builds with random weights."""
        return cls(config).eval()

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """The prettiness, float32 (n,)."""
        pixels = clip_pixels(images, self.edge).to(self.device, self.clip.dtype)
        features = F.normalize(self.clip(pixel_values=pixels).image_embeds.float(), dim=-1)
        return read_head(self.head, features)

    @classmethod
    def from_original(
        cls,
        place: str = PUBLISHED,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        head: list[int] | None = None,
    ) -> Aesthetic:
        """Reads the authors' head: `place` is its file, a folder with it, or a Hub id. Errors as in `find_file`.

        The CLIP, and its size, are those of clip/ beside the head, or OpenAI's from the Hub. head: its widths
        within, None means the published ones.
        """
        path = find_file(place, FILES, revision)
        beside = Path(place).expanduser() / "clip"
        fields, clip, _ = clip_folder(str(beside) if beside.is_dir() else PUBLISHED_CLIP)
        vision = {name: weight for name, weight in clip.items() if not name.startswith(_OF_TEXT)}
        config = AestheticConfig(vision=fields["vision_config"], head=head)
        named = {head_name(name): weight for name, weight in read_weights(path).items()}
        return cls.from_weights(config, {**inside("clip", vision), **inside("head", named)}, path, dtype)
