"""The memory table of reinforcement learning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from .rl.memory import PartMemory, Phase, cache_bytes, device_capacity, logits_bytes, memory_table, part_memory
from .settings import RolloutSettings

if TYPE_CHECKING:
    from .rl.context import Workshop

HEAD_TOKENS = 128
"""Tokens of template, pivot and user prompt that the estimate puts before what is added"""
SCORE_COPIES = 4
"""Tensors over the vocabulary at once while log-probabilities are computed: logits, masked logits, log-probabilities
and what the entropy needs"""
UPDATE_COPIES = 5
"""The same while a gradient is computed"""


def rl_parts_memory(
    encoder: object, decoder: object, generator: object, rewards: object, optimizer: str, learns: str = "encoder"
) -> list[PartMemory]:
    """Counts the parts: encoder and decoder, of which `learns` names the one that is trained, that one as it was warmed
    up, to which it is held, and what stays as it is. encoder: None for a decoder that stands alone."""
    parts = []
    for name, part in {"encoder": encoder, "decoder": decoder}.items():
        if part is not None:
            parts.append(part_memory(name, part, optimizer if name == learns else ""))
    trained = next(part for part in parts if part.name == learns)
    parts.append(PartMemory("reference", trained.dtypes, trained.parameters, trained.weights))
    return [*parts, part_memory("generator", generator), part_memory("rewards", rewards)]


def rl_phases(lm_config: Any, dtype: torch.dtype, rollouts: RolloutSettings, minibatch: int, rows: int) -> list[Phase]:
    """Returns the phases of an iteration with what each holds; rows: rollouts of an iteration on the device."""
    length, chunk, vocabulary = rollouts.max_new_tokens, rollouts.chunk, lm_config.vocab_size
    refined, scored, updated = min(chunk.refine, rows), min(chunk.score, rows), min(chunk.update, minibatch)
    return [
        Phase(
            "refine",
            frozenset({"encoder", "decoder"}),
            cache_bytes(lm_config, refined, HEAD_TOKENS + length, dtype) + logits_bytes(vocabulary, refined, 1, 2),
        ),
        Phase("draw", frozenset({"generator"}), 0),
        Phase("score", frozenset({"rewards"}), 0),
        Phase(
            "update",
            frozenset({"encoder", "reference", "decoder"}),
            max(
                logits_bytes(vocabulary, scored, length, SCORE_COPIES),
                logits_bytes(vocabulary, updated, length, UPDATE_COPIES),
            ),
        ),
    ]


def rl_memory(workshop: Workshop, optimizer: str, minibatch: int, device: torch.device) -> str:
    """Returns the table for a run that is about to begin."""
    decoder = workshop.parts.model.decoder
    parts = rl_parts_memory(
        workshop.parts.model.encoder,
        decoder,
        workshop.scorer.generator,
        list(workshop.scorer.rewards),
        optimizer,
        workshop.learns,
    )
    rows = workshop.batch_size * workshop.rollouts.samples_per_prompt
    dtype = decoder.projection.weight.dtype
    phases = rl_phases(decoder.lm.config.get_text_config(), dtype, workshop.rollouts, minibatch, rows)
    return memory_table(parts, phases, workshop.residence.offloaded, device_capacity(device))
