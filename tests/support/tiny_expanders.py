"""Language models small enough for tests, with random weights, as folders in the layout of the Hub."""

from __future__ import annotations

from pathlib import Path

from tiny_parts import USER_PROMPTS, build_tokenizer, llama_config, system_prompts, t5_config

END_TOKENS = [1, *range(10, 420, 24)]
"""What ends a text: so many that random weights come upon one, in some rows of a batch earlier than in others."""


def gpt2_config(**changes):
    """A GPT-2 of width 32."""
    from transformers import GPT2Config

    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 192, "vocab_size": 420, "initializer_range": 0.4}
    return GPT2Config(**{**shape, "bos_token_id": 1, "eos_token_id": 1, **changes})


def save_model(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a model of the family gpt2, llama or t5, and its tokenizer; returns the folder."""
    import torch
    from transformers import GPT2LMHeadModel, LlamaForCausalLM, T5ForConditionalGeneration

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "gpt2":
            model = GPT2LMHeadModel(gpt2_config())
        elif family == "llama":
            model = LlamaForCausalLM(llama_config(initializer_range=0.4))
        else:
            model = T5ForConditionalGeneration(t5_config(pad_token_id=0, eos_token_id=1))
            for parameter in model.parameters():
                parameter.data *= 3  # T5 starts so small that every prompt would get the same text
    texts = [*system_prompts(), *USER_PROMPTS]
    model.generation_config.eos_token_id = END_TOKENS
    model.save_pretrained(folder)
    build_tokenizer(texts, frame=family == "t5").save_pretrained(folder)
    return folder
