"""Rewards from a CLIP's similarity of image and user prompt: their base class, CLIP score, and PickScore."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedConfig

from ..errors import require
from ..loading.folders import resolve_folder
from ..loading.published_files import read_weights
from ..loading.untrusted import check_model_type, open_weights, read_json
from ..modeling.strict_model import nested_config
from ..text.clip_tokens import clip_tokenizer
from .preprocessing import clip_pixels, processor_pixels
from .scorer import Scorer, tower

VIT_L_14: dict[str, Any] = {
    "projection_dim": 768,
    "text_config": tower(768, 12, 12, projection_dim=768),
    "vision_config": tower(1024, 24, 16, projection_dim=768, patch_size=14),
}
"""openai/clip-vit-large-patch14, as fields of a CLIPConfig."""

VIT_H_14: dict[str, Any] = {
    "projection_dim": 1024,
    "text_config": tower(1024, 24, 16, projection_dim=1024, hidden_act="gelu"),
    "vision_config": tower(1280, 32, 16, projection_dim=1024, hidden_act="gelu", patch_size=14),
}
"""open_clip's ViT-H-14, as fields of a CLIPConfig."""

START_TOKEN, END_TOKEN = 49406, 49407
_BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


class ClipScorer(Scorer):
    """Base of the rewards that compare a CLIP's image and text features."""

    published_clip: dict[str, Any]
    """Default architecture, as fields of a CLIPConfig."""
    pixels = staticmethod(clip_pixels)
    """Maps images and the edge in pixels to float32 `(n, 3, edge, edge)`, preprocessed as this CLIP's authors do."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        if type(self).clean is ClipScorer.clean:
            require("ftfy", "rewards")  # on loading, not after the images have been drawn
        clip: Any = CLIPConfig(**(config.clip or self.published_clip))
        self.clip = CLIPModel(clip)
        self.edge: int = clip.vision_config.image_size
        self.text_length: int = clip.text_config.max_position_embeddings
        self.post_init()

    @classmethod
    def from_original(
        cls, place: str | None = None, revision: str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Load a CLIPModel from a folder or the Hub (None: what the authors published).

        Raises:
            CheckpointError: If there is none, or its weights do not fit.
        """
        fields, weights, folder = clip_folder(place or cls.published, revision)
        make_config: Any = cls.config_class
        return cls.from_weights(make_config(clip=fields), inside("clip", weights), folder, dtype)

    def clean(self, user_prompt: str) -> str:
        """Return a user prompt as this CLIP's authors clean it before tokenizing."""
        return clean_text(user_prompt)

    def cosines(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return the cosine similarity of each image and its user prompt, float32 `(n,)` in -1..1."""
        ids = clip_token_ids(list(map(self.clean, user_prompts)), self.text_length)
        pixels = self.pixels(images, self.edge).to(self.device, self.dtype)
        text_features = self.clip.get_text_features(input_ids=ids.to(self.device)).pooler_output
        image_features = self.clip.get_image_features(pixel_values=pixels).pooler_output
        return F.cosine_similarity(text_features.float(), image_features.float(), dim=-1)


class ClipScoreConfig(PreTrainedConfig):
    """Architecture of a ClipScore: `clip` holds fields of a CLIPConfig, None is OpenAI's ViT-L/14."""

    model_type = "prip_clip_score"

    name: str = "clip-score"
    clip: dict | None = None


class ClipScore(ClipScorer):
    """CLIP score: the cosine similarity of image and user prompt, mostly in 0.1..0.4."""

    config_class = ClipScoreConfig
    base_model_prefix = "clip_score"
    published = "openai/clip-vit-large-patch14"
    published_clip = VIT_L_14

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return the cosines, float32 `(n,)`."""
        return self.cosines(user_prompts, images)


class PickScoreConfig(PreTrainedConfig):
    """Architecture of a PickScore: `clip` holds fields of a CLIPConfig, None is ViT-H-14."""

    model_type = "prip_pick_score"

    name: str = "pick-score"
    clip: dict | None = None


class PickScore(ClipScorer):
    """PickScore (Kirstain et al., 2023): the logit of a CLIP ViT-H-14 trained on human choices.

    The logit is the cosine times CLIP's logit scale, about 100.
    """

    config_class = PickScoreConfig
    base_model_prefix = "pick_score"
    published = "yuvalkirstain/PickScore_v1"
    published_clip = VIT_H_14
    pixels = staticmethod(processor_pixels)

    def clean(self, user_prompt: str) -> str:
        """Return the prompt unchanged: transformers' CLIPTokenizer cleans nothing."""
        return user_prompt

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return the logits, float32 `(n,)`."""
        return self.clip.logit_scale.float().exp() * self.cosines(user_prompts, images)


def clean_text(text: str) -> str:
    """Clean a text as openai/CLIP and open_clip do: fix its encoding and quotes (ftfy), resolve HTML entities."""
    fixed = require("ftfy", "rewards").fix_text(text)
    return html.unescape(html.unescape(fixed)).strip()


def clip_token_ids(texts: Sequence[str], length: int) -> Tensor:
    """Return CLIP's token ids, int64 `(n, length)`: start, at most `length - 2` tokens, end, padded with ends."""
    tokenizer = clip_tokenizer()
    ids = torch.full((len(texts), length), END_TOKEN)
    for row, text in enumerate(texts):
        tokens = tokenizer.encode(text, add_special_tokens=False).ids[: length - 2]
        ids[row, : len(tokens) + 1] = torch.tensor([START_TOKEN, *tokens])
    return ids


def clip_folder(place: str, revision: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """Read a CLIP in transformers' format from a folder or the Hub.

    Returns:
        The fields of its CLIPConfig, its weights by name, and its local folder.

    Raises:
        CheckpointError: If there is none.
    """
    folder = resolve_folder(place, revision)
    fields = read_json(folder / "config.json")
    check_model_type(fields, "clip", folder / "config.json")
    return clip_fields(CLIPConfig.from_dict(fields)), _folder_weights(folder), folder


def _folder_weights(folder: Path) -> dict[str, Tensor]:
    """Return a saved model's weights by name, from safetensors or else from a local pickle of tensors."""
    pickled = folder / "pytorch_model.bin"
    is_pickled = pickled.is_file() and not any(folder.glob("*.safetensors"))
    weights = read_weights(pickled) if is_pickled else open_weights(folder)
    return {name: weight for name, weight in weights.items() if name not in _BUFFERS}


def clip_fields(config: CLIPConfig) -> dict[str, Any]:
    """Return the architecture in a CLIPConfig as plain fields, with projection_dim repeated in both towers."""
    width = {"projection_dim": config.projection_dim}
    towers: dict[str, Any] = {"text_config": config.text_config, "vision_config": config.vision_config}
    return {**width, **{key: {**nested_config(tower), **width} for key, tower in towers.items()}}


def inside(part: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Prefix the names of a network's weights with the attribute `part` that holds it."""
    return {f"{part}.{name}": weight for name, weight in weights.items()}
