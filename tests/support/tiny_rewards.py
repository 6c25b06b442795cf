"""The published rewards at a size for tests: their own architectures, random weights, images of 32 pixels."""

from __future__ import annotations

import string
from typing import Any

NAMES = ("image-reward", "hps-v2.0", "hps-v2.1", "pick-score", "clip-score", "aesthetic")


def clip_fields(hidden_act: str = "gelu") -> dict[str, Any]:
    """The fields of a CLIPConfig; CLIP's whole vocabulary."""
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16, "hidden_act": hidden_act}
    text = {"hidden_size": 24, "intermediate_size": 96, **shape, "num_attention_heads": 3}
    vision = {"hidden_size": 16, "intermediate_size": 64, "image_size": 32, "patch_size": 8, **shape}
    return {"projection_dim": 16, "text_config": text, "vision_config": vision}


def bert_tokenizer(vocabulary: list[str] | None = None):
    """BERT's tokenizer over letters and digits, or over `vocabulary`."""
    from transformers import BertTokenizer

    characters = [*string.ascii_lowercase, *string.digits, *",.'-"]
    tokens = vocabulary or ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *("##" + c for c in characters)]
    return BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})


def image_reward_config(**changes: Any):
    """An ImageReward of 2 x 2 layers."""
    from prip.rewards.image_reward import ImageRewardConfig

    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
    vision = {"hidden_size": 16, "intermediate_size": 64, "image_size": 32, "patch_size": 8, "layer_norm_eps": 1e-6}
    text = {"vocab_size": 128, "hidden_size": 24, "encoder_hidden_size": 16, "intermediate_size": 48}
    text |= {"bos_token_id": None, "sep_token_id": 3}
    return ImageRewardConfig(
        **{"vision": {**vision, **layers}, "text": {**text, **layers}, "head": [32, 16, 8, 4], **changes}
    )


def tiny_reward(name: str, seed: int = 0):
    """A reward of a registered name with random weights."""
    import torch

    from prip.rewards.aesthetic import Aesthetic, AestheticConfig
    from prip.rewards.clip_scorer import ClipScore, ClipScoreConfig, PickScore, PickScoreConfig
    from prip.rewards.hps_v2 import HpsV2, HpsV2Config
    from prip.rewards.image_reward import ImageReward

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "image-reward":
            return ImageReward.from_config(image_reward_config(), bert_tokenizer())
        if name == "aesthetic":
            vision = clip_fields("quick_gelu")["vision_config"]
            return Aesthetic.from_config(AestheticConfig(vision=vision, head=[32, 16, 8, 4]))
        if name == "pick-score":
            return PickScore.from_config(PickScoreConfig(clip=clip_fields()))
        if name == "clip-score":
            return ClipScore.from_config(ClipScoreConfig(clip=clip_fields("quick_gelu")))
        return HpsV2.from_config(HpsV2Config(name=name, clip=clip_fields()))
