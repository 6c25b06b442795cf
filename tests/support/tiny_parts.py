"""Tokenizers and configs small enough for tests: a vocabulary of some hundred tokens, models of width 32."""

from __future__ import annotations

from typing import Any

from prip.options import RefineOptions

USER_PROMPTS = [
    "a cat",
    "a dog on the beach",
    "two red apples in a bowl",
    "an old lighthouse at night",
    "the castle by the river",
    "a photo of a bicycle",
    "portrait of a fox in the forest",
    "a small boat on the lake",
]
MODIFIERS = [
    "golden hour",
    "sharp focus",
    "highly detailed",
    "close-up",
    "watercolor",
    "vivid colors",
    "soft light",
    "wide shot",
    "Dramatic Lighting",
    "8k",
    "trending on artstation",
    "muted colors",
]


def build_tokenizer(texts: list[str], vocabulary_size: int = 420, frame: bool = False):
    """Train a byte-level BPE tokenizer; `frame` makes it close every text with its end token, as T5's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<pad>", "</s>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if frame:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token=None if frame else "<s>"
    )


def system_prompts() -> list[str]:
    """System prompts in which every modifier meets every user prompt."""
    return [
        f"{user}, {MODIFIERS[i % len(MODIFIERS)]}, {MODIFIERS[(i * 5 + 3 + shift) % len(MODIFIERS)]}"
        for shift in range(4)
        for i, user in enumerate(USER_PROMPTS * 3)
    ]


def t5_config(**changes):
    """A T5 of width 32."""
    from transformers import T5Config

    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 420}
    return T5Config(**{**shape, "decoder_start_token_id": 0, **changes})


def llama_config(**changes):
    """A Llama of width 32."""
    from transformers import LlamaConfig

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": 420, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    return LlamaConfig(**{**shape, "max_position_embeddings": 256, "initializer_range": 0.2, **tokens, **changes})


def options_with(**changes: Any) -> RefineOptions:
    """The options of tests that sample: faults are allowed, since tiny models name them."""
    return RefineOptions(**{"allow_faults": True, **changes})
