"""Small language models: a Flan-T5 and a Llama, with tokenizers of their own."""

from __future__ import annotations

from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from ..tokenizers import train_decoder_tokenizer, train_encoder_tokenizer

WIDTH, LAYERS, HEADS, VOCABULARY = 32, 2, 2, 600


def write_t5(folder: Path, texts: list[str]) -> None:
    """A Flan-T5: gated GELU."""
    tokenizer = train_encoder_tokenizer(texts, VOCABULARY)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=2 * WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_llama(folder: Path, texts: list[str]) -> None:
    """A Llama."""
    tokenizer = train_decoder_tokenizer(texts, VOCABULARY)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
