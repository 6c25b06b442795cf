"""ImageReward (Xu et al., 2023): BLIP's text network cross-attends to the image, and a linear head scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.blip.modeling_blip_text import BlipTextModel

from ..loading.published_files import find_file, hub_file, read_weights
from ..processing import load_tokenizer
from .preprocessing import clip_pixels
from .scorer import Scorer, TokenizedModel, head_name, linear_head, read_head, tower

PUBLISHED_TOKENIZER = "google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594"
FILES = ("ImageReward.pt",)

VIT_LARGE = tower(1024, 24, 16, patch_size=16, image_size=224, layer_norm_eps=1e-6)
"""BLIP's large vision transformer, as fields of a BlipVisionConfig."""

MED_BASE = tower(768, 12, 12, vocab_size=30524, encoder_hidden_size=1024)
"""BLIP's text network, a BERT with cross-attention (med_config.json), as fields of a BlipTextConfig."""

_UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
"""Weights in the authors' file that scoring does not need."""

_VISION_BLOCKS = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_VISION_OUTSIDE = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}


class ImageRewardConfig(PreTrainedConfig):
    """Architecture of an ImageReward: `vision` and `text` hold fields of a BlipVisionConfig and a BlipTextConfig,
    `head` the inner widths of the head; None is the published ones. Prompts are truncated to `text_length` tokens."""

    model_type = "prip_image_reward"

    name: str = "image-reward"
    vision: dict | None = None
    text: dict | None = None
    head: list[int] | None = None
    text_length: int = 35
    score_mean: float = 0.16717362830052426
    score_deviation: float = 1.0333394966054072


class ImageReward(TokenizedModel, Scorer):
    """ImageReward's scores, standardised by its authors' mean and deviation."""

    config_class = ImageRewardConfig
    base_model_prefix = "image_reward"
    published = "THUDM/ImageReward"
    _keep_in_fp32_modules_strict = ["head"]

    def __init__(self, config: ImageRewardConfig) -> None:
        super().__init__(config)
        vision: Any = BlipVisionConfig(**(config.vision or VIT_LARGE))
        self.vision = BlipVisionModel(vision)
        self.edge: int = vision.image_size
        text = BlipTextConfig(**{**(config.text or MED_BASE), "is_decoder": True, "use_cache": False})
        self.text = BlipTextModel(text, add_pooling_layer=False)
        self.head = linear_head(text.hidden_size, config.head)
        self.tokenizer = None
        self.post_init()

    @classmethod
    def from_config(  # type: ignore[override]
        cls, config: ImageRewardConfig, tokenizer: PreTrainedTokenizerFast
    ) -> Self:
        """Build the reward with random weights."""
        model = super().from_config(config)
        model.tokenizer = tokenizer
        return model

    def encode(self, user_prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return token ids and mask, each int64 `(n, text_length)`, truncated and padded, on the model's device."""
        assert self.tokenizer is not None
        batch = self.tokenizer(
            list(user_prompts),
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.config.text_length,
            return_tensors="pt",
        )
        return batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return standardised scores, float32 `(n,)`, that the head reads from the first token's hidden state."""
        input_ids, mask = self.encode(user_prompts)
        pixels = clip_pixels(images, self.edge).to(self.device, self.vision.dtype)
        hidden = self.text(
            input_ids=input_ids,
            attention_mask=mask,
            encoder_hidden_states=self.vision(pixel_values=pixels).last_hidden_state,
            is_decoder=False,
        ).last_hidden_state[:, 0]
        return (read_head(self.head, hidden) - self.config.score_mean) / self.config.score_deviation

    @classmethod
    def from_original(
        cls,
        place: str | None = None,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        config: ImageRewardConfig | None = None,
    ) -> Self:
        """Load the authors' weights, with the tokenizer.json beside them or else BERT's (uncased) from the Hub.

        Args:
            place: Their file, a folder that holds it, or a Hub id; None is `published`.
            revision: Of the Hub repository.
            dtype: Of the networks; None is float32. The head is always float32.
            config: Architecture; None is the published one.

        Raises:
            CheckpointError: If there is no such file, or its weights do not fit.
        """
        path = find_file(place or cls.published, FILES, revision)
        weights = from_blip(read_weights(path))
        model = cls.from_weights(config or ImageRewardConfig(), weights, path, dtype)
        if not (path.parent / "tokenizer.json").is_file():
            hub_file(PUBLISHED_TOKENIZER, "tokenizer_config.json")
            path = hub_file(PUBLISHED_TOKENIZER, "tokenizer.json")
        model.tokenizer = load_tokenizer(path.parent)
        return model


def from_blip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' weights to those of an ImageReward; unknown names stay for strict loading to report."""
    renamed = {}
    for name, weight in weights.items():
        if name.startswith("blip.visual_encoder."):
            renamed["vision." + _vision_name(name.removeprefix("blip.visual_encoder."))] = weight
        elif name.startswith("mlp."):
            renamed["head." + head_name(name.removeprefix("mlp."))] = weight
        elif not name.startswith(_UNUSED):
            renamed[name.replace("blip.text_encoder.", "text.", 1)] = weight
    return renamed


def _vision_name(name: str) -> str:
    if not name.startswith("blocks."):
        return _VISION_OUTSIDE.get(name, name)
    _, block, rest = name.split(".", 2)
    layer, _, kind = rest.rpartition(".")
    return f"encoder.layers.{block}.{_VISION_BLOCKS.get(layer, layer)}.{kind}"
