"""A BLIP-2 small enough for tests."""

from __future__ import annotations

from typing import Any


def tiny_blip2_config(**changes: Any) -> Any:
    """A BLIP-2 of the same architecture : pivots of 4 x 16, images of 28 pixels."""
    from transformers import Blip2Config

    shape: dict[str, Any] = {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "initializer_range": 0.02,
        },
        "qformer_config": {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 40,
            "max_position_embeddings": 16,
        },
        "num_query_tokens": 4,
        "image_text_hidden_size": 8,
    }
    return Blip2Config(**{**shape, **changes})
