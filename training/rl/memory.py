"""The memory table of RL: the bytes on a device, by part and by phase of an iteration.

Everything is counted from shapes and dtypes, so modules on the `meta` device can be counted too. Sizes are in bytes, in
tables in GB (10**9 bytes). Activations and fragmentation are not counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedConfig

from prip.fingerprints import modules_inside

from ..settings import RolloutSettings

if TYPE_CHECKING:
    from .context import RlContext

ADAFACTOR_STATE = 4
"""Bytes per number of Adafactor's state, which is always float32"""

HEAD_TOKENS = 128
"""Tokens of template, pivot and user prompt that the estimate assumes before the added ones"""
SCORE_COPIES = 4
"""Tensors over the vocabulary at once without gradients: logits, masked logits, log-probabilities, entropy terms"""
UPDATE_COPIES = 5
"""The same with gradients"""


@dataclass(frozen=True, kw_only=True)
class PartMemory:
    """The memory of one part on one device."""

    name: str
    dtypes: str
    """Dtypes of its parameters"""
    parameters: int
    weights: int
    """Bytes of parameters and buffers"""
    trainable: int = 0
    """Trained parameters"""
    gradients: int = 0
    """Bytes of their gradients"""
    optimizer: int = 0
    """Bytes of their optimizer state"""

    @property
    def bytes(self) -> int:
        """Bytes of weights, gradients and optimizer state together."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Phase:
    """A phase of an iteration: the parts it uses, and the bytes it needs beside them."""

    name: str
    uses: frozenset[str]
    workspace: int


def part_memory(name: str, part: object, optimizer: str = "") -> PartMemory:
    """Count the memory of a part.

    Args:
        name: The part's name in the table.
        part: A module, or an object or list that contains modules; shared tensors are counted once.
        optimizer: "adamw" or "adafactor" for the parameters that require gradients; "" for a part that is not trained.
    """
    members = part if isinstance(part, list | tuple) else [part]
    modules = [module for member in members for module in modules_inside(member)]
    parameters = {id(value): value for module in modules for value in module.parameters()}
    buffers = {id(value): value for module in modules for value in module.buffers()}
    trained = [value for value in parameters.values() if optimizer and value.requires_grad]
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in parameters.values()})
    return PartMemory(
        name=name,
        dtypes=", ".join(dtypes) or "none",
        parameters=sum(value.numel() for value in parameters.values()),
        weights=sum(value.nbytes for value in (*parameters.values(), *buffers.values())),
        trainable=sum(value.numel() for value in trained),
        gradients=sum(value.nbytes for value in trained),
        optimizer=sum(optimizer_state(optimizer, value) for value in trained),
    )


def optimizer_state(optimizer: str, parameter: torch.Tensor) -> int:
    """Return the bytes of a parameter's optimizer state.

    AdamW keeps two moments in the parameter's dtype. Adafactor, without a first moment, keeps one mean per row and per
    column of a matrix, or every element of a vector.
    """
    if optimizer == "adamw":
        return 2 * parameter.nbytes
    if parameter.dim() < 2:
        return ADAFACTOR_STATE * parameter.numel()
    rows = parameter.numel() // parameter.shape[-1]
    columns = parameter.numel() // parameter.shape[-2]
    return ADAFACTOR_STATE * (rows + columns)


def cache_bytes(lm_config: PreTrainedConfig, rows: int, length: int, dtype: torch.dtype) -> int:
    """Return the bytes of a language model's key-value cache for `rows` texts of `length` tokens."""
    heads = lm_config.num_attention_heads
    key_value_heads = getattr(lm_config, "num_key_value_heads", None) or heads
    width = getattr(lm_config, "head_dim", None) or lm_config.hidden_size // heads
    return 2 * lm_config.num_hidden_layers * key_value_heads * width * rows * length * dtype.itemsize


def logits_bytes(vocabulary: int, rows: int, length: int, copies: int) -> int:
    """Return the bytes of `copies` float32 tensors (rows, length, vocabulary)."""
    return 4 * vocabulary * rows * length * copies


def phase_bytes(parts: Sequence[PartMemory], phase: Phase, offloaded: Collection[str]) -> int:
    """Return the bytes that a device holds in a phase: the parts in use or not offloaded, and the workspace."""
    present = [part.bytes for part in parts if part.name in phase.uses or part.name not in offloaded]
    return sum(present) + phase.workspace


def memory_table(
    parts: Sequence[PartMemory], phases: Sequence[Phase], offloaded: Collection[str] = (), capacity: int | None = None
) -> str:
    """Return the table as text: a line per part, a line per phase, and the maximum beside the device's capacity."""
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
        lines.append(f"{phase.name:12}{_gb(sums[phase.name]):>16}  of which {_gb(phase.workspace)} workspace")
    most = max(sums, key=lambda name: sums[name])
    share = "" if capacity is None else f" of the device's {_gb(capacity)} GB ({sums[most] / capacity:.0%})"
    lines.append(f"at most {_gb(sums[most])} GB{share}, in {most}; activations come on top")
    return "\n".join(lines)


def device_capacity(device: torch.device) -> int | None:
    """Return the bytes of memory of an accelerator; None for the CPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f}" if size < 1e11 else f"{size / 1e9:,.0f}"


def rl_parts_memory(
    encoder: object, decoder: object, generator: object, rewards: object, *, optimizer: str, learns: str = "encoder"
) -> list[PartMemory]:
    """Count the parts of RL, with a frozen copy of the one that `learns` as the reference.

    encoder is None for a decoder that reads no pivot; optimizer is "adamw" or "adafactor".
    """
    parts = []
    for name, part in {"encoder": encoder, "decoder": decoder}.items():
        if part is not None:
            parts.append(part_memory(name, part, optimizer if name == learns else ""))
    learner = next(part for part in parts if part.name == learns)
    parts.append(replace(learner, name="reference", trainable=0, gradients=0, optimizer=0))
    return [*parts, part_memory("generator", generator), part_memory("rewards", rewards)]


def rl_phases(
    lm_config: PreTrainedConfig, dtype: torch.dtype, rollouts: RolloutSettings, minibatch: int, rows: int
) -> list[Phase]:
    """Return the phases of an iteration with `rows` rollouts on the device, `minibatch` per optimizer step.

    lm_config and dtype describe the decoder's language model.
    """
    length, chunk, vocabulary = rollouts.max_new_tokens, rollouts.chunk, lm_config.vocab_size
    refined, scored, updated = min(chunk.refine, rows), min(chunk.score, rows), min(chunk.update, minibatch)
    cache = cache_bytes(lm_config, refined, HEAD_TOKENS + length, dtype)
    scoring = logits_bytes(vocabulary, scored, length, SCORE_COPIES)
    updating = logits_bytes(vocabulary, updated, length, UPDATE_COPIES)
    return [
        Phase("refine", frozenset({"encoder", "decoder"}), cache + logits_bytes(vocabulary, refined, 1, 2)),
        Phase("draw", frozenset({"generator"}), 0),
        Phase("score", frozenset({"rewards"}), 0),
        Phase("update", frozenset({"encoder", "reference", "decoder"}), max(scoring, updating)),
    ]


def rl_memory(context: RlContext, device: torch.device) -> str:
    """Return the memory table of a run that is about to begin."""
    settings, model = context.settings, context.parts.model
    parts = rl_parts_memory(
        model.encoder,
        model.decoder,
        context.scorer.images.generator,
        list(context.scorer.images.rewards),
        optimizer=settings.optimizer.name,
        learns=settings.learns,
    )
    rows = settings.loop.batch_size * settings.rollouts.samples_per_prompt
    config, dtype = model.decoder.lm.config.get_text_config(), model.decoder.projection.weight.dtype
    phases = rl_phases(config, dtype, settings.rollouts, settings.ppo.minibatch, rows)
    return memory_table(parts, phases, context.policy.offloading.offloaded, device_capacity(device))
