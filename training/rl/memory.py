"""What a device must hold: weights, gradients and optimizer state of each part, and what the phases of a step add.

Everything is counted from shapes and number formats, so that modules on the `meta` device, without any memory, count as
well. Sizes are in bytes, and in tables in GB of 10**9. Activations and the allocator's own losses are not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from prip.fingerprints import modules_inside

from ..settings import RolloutSettings

if TYPE_CHECKING:
    from .context import Workshop

ADAFACTOR_STATE = 4
"""Bytes of a number in Adafactor's state, which is float32 whatever the weights are"""

HEAD_TOKENS = 128
"""Tokens of template, pivot and user prompt that the estimate puts before what is added"""
SCORE_COPIES = 4
"""Tensors over the vocabulary at once while log-probabilities are computed: logits, masked logits, log-probabilities
and what the entropy needs"""
UPDATE_COPIES = 5
"""The same while a gradient is computed"""


@dataclass(frozen=True)
class PartMemory:
    """One part on one device."""

    name: str
    dtypes: str
    """Number formats of its parameters"""
    parameters: int
    weights: int
    """Bytes of parameters and buffers"""
    trainable: int = 0
    """Parameters that are trained"""
    gradients: int = 0
    """Bytes of their gradients"""
    optimizer: int = 0
    """Bytes of their optimizer's state"""

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Phase:
    """A part of a step: which parts it uses, and what it holds besides, in bytes."""

    name: str
    uses: frozenset[str]
    workspace: int


def part_memory(name: str, part: object, optimizer: str = "") -> PartMemory:
    """Counts `part`: modules, or an object or a list with modules inside; a tensor that several share is counted once.

    optimizer: "adamw" or "adafactor" for what requires gradients; "" for a part that is never trained.
    """
    modules = [module for one in (part if isinstance(part, list | tuple) else [part]) for module in modules_inside(one)]
    parameters = {id(value): value for module in modules for value in module.parameters()}
    buffers = {id(value): value for module in modules for value in module.buffers()}
    trained = [value for value in parameters.values() if optimizer and value.requires_grad]
    return PartMemory(
        name,
        ", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in parameters.values()})) or "none",
        sum(value.numel() for value in parameters.values()),
        sum(value.nbytes for value in (*parameters.values(), *buffers.values())),
        sum(value.numel() for value in trained),
        sum(value.nbytes for value in trained),
        sum(optimizer_state(optimizer, value) for value in trained),
    )


def optimizer_state(optimizer: str, parameter: torch.Tensor) -> int:
    """Returns the bytes that the optimizer keeps of a parameter: AdamW two moments in its own format; Adafactor,
    without a first moment, the means over the last and the last but one dimension, or all of it where there is one."""
    if optimizer == "adamw":
        return 2 * parameter.nbytes
    if parameter.dim() < 2:
        return ADAFACTOR_STATE * parameter.numel()
    rows = parameter.numel() // parameter.shape[-1]
    columns = parameter.numel() // parameter.shape[-2]
    return ADAFACTOR_STATE * (rows + columns)


def cache_bytes(lm_config: Any, rows: int, length: int, dtype: torch.dtype) -> int:
    """Returns the bytes of the keys and values that a language model keeps of `rows` texts of `length` tokens."""
    heads = lm_config.num_attention_heads
    shared = getattr(lm_config, "num_key_value_heads", None) or heads
    width = getattr(lm_config, "head_dim", None) or lm_config.hidden_size // heads
    return 2 * lm_config.num_hidden_layers * shared * width * rows * length * dtype.itemsize


def logits_bytes(vocabulary: int, rows: int, length: int, copies: int) -> int:
    """Returns the bytes of `copies` float32 tensors over the vocabulary at each position."""
    return 4 * vocabulary * rows * length * copies


def phase_bytes(parts: Sequence[PartMemory], phase: Phase, offloaded: Collection[str]) -> int:
    """Returns what a device holds in a phase: all parts that are not offloaded, those that it uses, its workspace."""
    held = [part.bytes for part in parts if part.name in phase.uses or part.name not in offloaded]
    return sum(held) + phase.workspace


def memory_table(
    parts: Sequence[PartMemory], phases: Sequence[Phase], offloaded: Collection[str] = (), capacity: int | None = None
) -> str:
    """Returns the table as text: a line for each part, one for each phase, and the most beside what the device has."""
    lines = [
        f"{'part':12}{'parameters':>16}  {'format':10}{'weights':>9}{'trained':>15}{'gradients':>11}{'optimizer':>11}"
    ]
    for part in parts:
        lines.append(
            f"{part.name:12}{part.parameters:16,}  {part.dtypes:10}{_gb(part.weights):>9}{part.trainable:15,}"
            f"{_gb(part.gradients):>11}{_gb(part.optimizer):>11}" + ("  offloaded" if part.name in offloaded else "")
        )
    sums = {phase.name: phase_bytes(parts, phase, offloaded) for phase in phases}
    for phase in phases:
        lines.append(f"{phase.name:12}{_gb(sums[phase.name]):>16}  of which {_gb(phase.workspace)} for what it holds")
    most = max(sums, key=lambda name: sums[name])
    share = "" if capacity is None else f" of the device's {_gb(capacity)} GB ({sums[most] / capacity:.0%})"
    lines.append(f"at most {_gb(sums[most])} GB{share}, in {most}; activations come on top")
    return "\n".join(lines)


def device_capacity(device: torch.device) -> int | None:
    """Returns the bytes that an accelerator has; None for the CPU, whose memory is the machine's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f}" if size < 1e11 else f"{size / 1e9:,.0f}"


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
