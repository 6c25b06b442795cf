"""LAION's aesthetic predictor (sac+logos+ava1-l14-linearMSE): how pretty an image is, whatever its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, PreTrainedConfig

from ..loading.published_files import find_file, read_weights
from .clip_scorer import VIT_L_14, clip_folder, inside
from .preprocessing import clip_pixels
from .scorer import Scorer, head_name, linear_head, read_head

PUBLISHED_CLIP = "openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41"
FILES = ("aesthetic-model.pth", "sac+logos+ava1-l14-linearMSE.pth")
"""Name of the head's file: on the Hub, and as its authors distribute it."""

_TEXT_WEIGHTS = ("text_model.", "text_projection.", "logit_scale")


class AestheticConfig(PreTrainedConfig):
    """Architecture of an Aesthetic: `vision` holds fields of a CLIPVisionConfig, None is OpenAI's ViT-L/14; `head`
    holds the inner widths of the head, None is the published ones."""

    model_type = "prip_aesthetic"

    name: str = "aesthetic"
    vision: dict | None = None
    head: list[int] | None = None


class Aesthetic(Scorer):
    """The aesthetic predictor: a linear head on normalised CLIP ViT-L/14 image features; mostly in 1..10."""

    config_class = AestheticConfig
    base_model_prefix = "aesthetic"
    published = "trl-lib/ddpo-aesthetic-predictor"
    _keep_in_fp32_modules_strict = ["head"]

    def __init__(self, config: AestheticConfig) -> None:
        super().__init__(config)
        vision: Any = CLIPVisionConfig(**(config.vision or VIT_L_14["vision_config"]))
        self.clip = CLIPVisionModelWithProjection(vision)
        self.edge: int = vision.image_size
        self.head = linear_head(vision.projection_dim, config.head)
        self.post_init()

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return the aesthetic scores, float32 `(n,)`; the prompts are not read."""
        pixels = clip_pixels(images, self.edge).to(self.device, self.clip.dtype)
        features = F.normalize(self.clip(pixel_values=pixels).image_embeds.float(), dim=-1)
        return read_head(self.head, features)

    @classmethod
    def from_original(
        cls,
        place: str | None = None,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        head: list[int] | None = None,
    ) -> Self:
        """Load the authors' head, and the CLIP in clip/ beside it or else OpenAI's from the Hub.

        Args:
            place: The head's file, a folder that holds it, or a Hub id; None is `published`.
            revision: Of the Hub repository.
            dtype: Of the CLIP; None is float32. The head is always float32.
            head: Inner widths of the head; None is the published ones.

        Raises:
            CheckpointError: If there is no such file, or its weights do not fit.
        """
        place = place or cls.published
        path = find_file(place, FILES, revision)
        beside = Path(place).expanduser() / "clip"
        fields, clip, _ = clip_folder(str(beside) if beside.is_dir() else PUBLISHED_CLIP)
        vision = {name: weight for name, weight in clip.items() if not name.startswith(_TEXT_WEIGHTS)}
        config = AestheticConfig(vision=fields["vision_config"], head=head)
        named = {head_name(name): weight for name, weight in read_weights(path).items()}
        return cls.from_weights(config, {**inside("clip", vision), **inside("head", named)}, path, dtype)
