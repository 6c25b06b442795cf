"""Language models that are built from scratch, as a tokenizer and their sizes have them."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, PreTrainedTokenizerBase, T5Config

from .settings import LlamaSizes, T5Sizes


def t5_config(tokenizer: PreTrainedTokenizerBase, sizes: T5Sizes) -> T5Config:
    """Returns a T5 like Flan-T5's, with gated GELU. sizes: but for vocab_size, which the tokenizer has."""
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=sizes.d_model,
        d_kv=sizes.d_model // sizes.heads,
        d_ff=sizes.d_ff,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        dropout_rate=sizes.dropout,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def llama_config(tokenizer: PreTrainedTokenizerBase, sizes: LlamaSizes, **options: Any) -> LlamaConfig:
    """Returns a Llama. sizes: but for vocab_size, which the tokenizer has. options: further ones of a LlamaConfig."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
