"""Small language models: a Flan-T5 and a Llama, with tokenizers of their own."""

from __future__ import annotations

from pathlib import Path

from transformers import LlamaForCausalLM, T5ForConditionalGeneration

from ..from_scratch import llama_config, t5_config
from ..settings import LlamaSizes, T5Sizes
from ..tokenizers import train_decoder_tokenizer, train_encoder_tokenizer

VOCABULARY = 600
T5 = T5Sizes(d_model=32, d_ff=64, layers=2, heads=2, dropout=0.1)
LLAMA = LlamaSizes(hidden_size=32, intermediate_size=64, layers=2, heads=2)


def write_t5(folder: Path, texts: list[str]) -> None:
    """A Flan-T5: gated GELU."""
    tokenizer = train_encoder_tokenizer(texts, VOCABULARY)
    config = t5_config(tokenizer, T5)
    config.decoder_start_token_id = tokenizer.pad_token_id
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_llama(folder: Path, texts: list[str]) -> None:
    """A Llama."""
    tokenizer = train_decoder_tokenizer(texts, VOCABULARY)
    LlamaForCausalLM(llama_config(tokenizer, LLAMA)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
