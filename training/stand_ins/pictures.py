"""Tiny image models: a BLIP-2, a Stable Diffusion, and the published rewards."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from transformers import BertTokenizer, Blip2Config, PreTrainedTokenizerFast

from prip.pivot_encoders.blip2 import Blip2PivotEncoder
from prip.rewards.aesthetic import Aesthetic, AestheticConfig
from prip.rewards.clip_scorer import ClipScore, ClipScoreConfig
from prip.rewards.hps_v2 import HpsV2, HpsV2Config
from prip.rewards.image_reward import ImageReward, ImageRewardConfig
from prip.text.clip_tokens import clip_tokenizer

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "initializer_range": 0.02,
}
"""A vision transformer of four patches."""
TEXT: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
"""A text transformer."""
CLIP: dict[str, Any] = {
    "projection_dim": 16,
    "text_config": {**TEXT, "projection_dim": 16},
    "vision_config": {**VISION, "projection_dim": 16},
}
HEAD = [16, 8]
"""Inner widths of the rewards' heads."""
IMAGE_REWARD: dict[str, Any] = {
    "vision": {**VISION, "layer_norm_eps": 1e-6},
    "text": {**TEXT, "vocab_size": 128, "encoder_hidden_size": 32, "bos_token_id": None, "sep_token_id": 3},
    "head": HEAD,
}
"""Fields of an ImageRewardConfig."""
UNET: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT["hidden_size"],
    "attention_head_dim": 2,
    "norm_num_groups": 8,
}
"""A UNet of two levels."""


def write_blip2(folder: Path) -> None:
    """Write BLIP-2's vision transformer and Q-Former, with pivots of 4 x 16."""
    qformer = {**TEXT, "hidden_size": 16, "encoder_hidden_size": VISION["hidden_size"]}
    config = Blip2Config(vision_config=VISION, qformer_config=qformer, num_query_tokens=4)
    Blip2PivotEncoder(config).save_pretrained(folder)


def write_stable_diffusion(folder: Path, image_size: int) -> None:
    """Write a Stable Diffusion 1 with CLIP's own vocabulary, a UNet of two levels and an autoencoder of factor 8."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    autoencoder = AutoencoderKL(
        block_out_channels=(16,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=8,
    )
    pipeline: Any = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
        tokenizer=clip_prompt_tokenizer(),
        unet=UNet2DConditionModel(sample_size=image_size // 8, **UNET),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)


def write_reward(folder: Path, name: str) -> None:
    """Write a published reward by its registered name."""
    if name == "image-reward":
        reward: Any = ImageReward.from_config(ImageRewardConfig(**IMAGE_REWARD), bert_tokenizer())
    elif name == "aesthetic":
        reward = Aesthetic.from_config(AestheticConfig(vision={**VISION, "projection_dim": 16}, head=HEAD))
    elif name == "clip-score":
        reward = ClipScore.from_config(ClipScoreConfig(clip=CLIP))
    else:
        reward = HpsV2.from_config(HpsV2Config(name=name, clip=CLIP))
    reward.save_pretrained(folder)


def bert_tokenizer() -> BertTokenizer:
    """Return a BERT tokenizer of letters and digits."""
    characters = [*string.ascii_lowercase, *string.digits, *",.'-"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + c for c in characters)]
    return BertTokenizer(vocab={token: id_ for id_, token in enumerate(tokens)})


def clip_prompt_tokenizer() -> PreTrainedTokenizerFast:
    """Return CLIP's tokenizer, with its begin and end tokens."""
    from tokenizers import processors

    shared, begin, end = clip_tokenizer(), "<|startoftext|>", "<|endoftext|>"
    backend = type(shared).from_str(shared.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(token, backend.token_to_id(token)) for token in (begin, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=77, bos_token=begin, eos_token=end, pad_token=end, unk_token=end
    )
