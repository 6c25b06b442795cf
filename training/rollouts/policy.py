"""The policy: samples refinements of user prompts, and scores their actions again for the policy gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder
from prip.options import RefineOptions
from prip.refiner import Refiner

from .offloading import Residence

REPLAYED_AT_ONCE = 16
"""Refinements whose constraints are held as bool (batch, length, vocab) at once"""
Learner = PreferenceEncoder | PromptDecoder
"""The part that learns: E, or D"""


@dataclass(frozen=True)
class Refinement:
    """One user prompt and what the policy made of it."""

    user_prompt: str
    refined_prompt: str
    actions: list[int]
    """Tokens after the prefix, the end token included; empty if the user prompt left no room."""


@dataclass(frozen=True)
class Policy:
    """How D continues a prefix: by which refiner's models and constraints, and within which limits."""

    refiner: Refiner
    max_new_tokens: int
    token_budget: int
    chunk: int = 256
    """User prompts that are refined at once"""
    residence: Residence = field(default_factory=lambda: Residence({}))
    """Where the decoder is, by this name"""

    @property
    def options(self) -> RefineOptions:
        """Options of the sampler. Faults are allowed: the reward decides about them."""
        return RefineOptions(
            top_p=1.0, max_new_tokens=self.max_new_tokens, token_budget=self.token_budget, allow_faults=True
        )

    def refine(
        self, user_prompts: Sequence[str], temperature: float = 0.0, seeds: Sequence[tuple[int, int]] | None = None
    ) -> list[Refinement]:
        """Returns one refinement for each user prompt, with its actions: at temperature 0 as Refiner.refine makes it.

        Above it, tokens are sampled under the masks alone, with probabilities that `score` finds again.
        seeds: (seed, alternative) of each row, where the temperature is above 0.
        """
        seeds = seeds if seeds is not None else [(0, 0)] * len(user_prompts)
        found: list[list[int]] = []
        with self.residence.using("decoder"):
            for start in range(0, len(user_prompts), self.chunk):
                some = slice(start, start + self.chunk)
                found += self.refiner.sampler.sample(
                    user_prompts[some],
                    seeds[some],
                    replace(self.options, temperature=temperature),
                    whole_modifiers=temperature == 0,
                )
        return [
            Refinement(prompt, self.refiner.sampler.text(prompt, own), own)
            for prompt, own in zip(user_prompts, found, strict=True)
        ]

    def has_room(self, user_prompts: Sequence[str]) -> list[bool]:
        """Returns which user prompts leave room for a modifier."""
        return self.refiner.sampler.has_room(user_prompts, self.options)

    def collate(self, refinements: Sequence[Refinement]) -> ActionBatch:
        """Returns the tensors from which the refinements' actions are scored again, on the CPU."""
        processor = self.refiner.processor
        prompts = [one.user_prompt for one in refinements]
        prefixes = [processor.prefix_ids(prompt) for prompt in prompts]
        encoder_ids, encoder_mask = processor.encode_user_prompts(prompts)
        rows, vocabulary = len(refinements), self.refiner.sampler.vocabulary_size
        width = max(len(prefix) + len(one.actions) for prefix, one in zip(prefixes, refinements, strict=True))
        length = max(1, *(len(one.actions) for one in refinements), 1)
        batch = ActionBatch(
            encoder_ids=encoder_ids,
            encoder_mask=encoder_mask,
            input_ids=torch.zeros(rows, width, dtype=torch.long),
            attention_mask=torch.zeros(rows, width, dtype=torch.long),
            positions=torch.zeros(rows, length, dtype=torch.long),
            actions=torch.zeros(rows, length, dtype=torch.long),
            mask=torch.zeros(rows, length, dtype=torch.bool),
            allowed_bits=torch.full((rows, length, -(-vocabulary // 8)), 255, dtype=torch.uint8),
            vocabulary=vocabulary,
        )
        for start in range(0, rows, REPLAYED_AT_ONCE):
            some = slice(start, start + REPLAYED_AT_ONCE)
            replayed = self.refiner.sampler.replay(
                prompts[some], [one.actions for one in refinements[some]], self.options
            )
            batch.allowed_bits[some, : replayed.shape[1]] = pack_bits(replayed)
        for row, (prefix, one) in enumerate(zip(prefixes, refinements, strict=True)):
            begin, count = len(prefix), len(one.actions)
            batch.input_ids[row, : begin + count] = torch.tensor([*prefix, *one.actions])
            batch.attention_mask[row, : begin + count] = 1
            batch.positions[row, :count] = torch.arange(begin, begin + count)
            batch.actions[row, :count] = torch.tensor(one.actions, dtype=torch.long)
            batch.mask[row, :count] = True
        return batch

    def score(self, part: Learner, batch: ActionBatch) -> tuple[Tensor, Tensor]:
        """Returns what chose each action with `part` in the place of the refiner's own: logits (batch, length, vocab)
        and hidden states (batch, length, hidden size). The gradient reaches an encoder through the frozen decoder."""
        own = self.refiner.model
        model = PripModel(part, own.decoder) if isinstance(part, PreferenceEncoder) else PripModel(own.encoder, part)
        pivot = model.pivot(batch.encoder_ids, batch.encoder_mask)
        output = model.decoder(pivot, batch.input_ids, batch.attention_mask)
        places = batch.positions.unsqueeze(-1)
        logits = output.logits.gather(1, places.expand(-1, -1, output.logits.shape[-1]))
        return logits, output.hidden.gather(1, places.expand(-1, -1, output.hidden.shape[-1]))


@dataclass(frozen=True)
class ActionBatch:
    """Refinements as tensors; rows are padded on the right."""

    encoder_ids: Tensor
    """int64 (batch, user prompt length): what E reads"""
    encoder_mask: Tensor
    """int64, 1 = token"""
    input_ids: Tensor
    """int64 (batch, width): prefix and actions, what D reads"""
    attention_mask: Tensor
    """int64 (batch, width), 1 = token"""
    positions: Tensor
    """int64 (batch, length): where in input_ids each action stands"""
    actions: Tensor
    """int64 (batch, length)"""
    mask: Tensor
    """bool (batch, length): True where an action was taken"""
    allowed_bits: Tensor
    """uint8 (batch, length, vocab / 8, rounded up): `allowed` by pack_bits, as it is larger than all else together"""
    vocabulary: int

    @property
    def allowed(self) -> Tensor:
        """bool (batch, length, vocab): the constraints under which each action was taken. Made anew by every call."""
        return unpack_bits(self.allowed_bits, self.vocabulary)

    def __len__(self) -> int:
        return len(self.actions)

    def to(self, device: torch.device) -> ActionBatch:
        """Returns the batch on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def rows(self, chosen: Tensor) -> ActionBatch:
        """Returns the rows `chosen`, int64 (n,)."""
        return self._each(lambda tensor: tensor[chosen])

    def _each(self, change: Callable[[Tensor], Tensor]) -> ActionBatch:
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in held.items() if isinstance(value, Tensor)}
        return replace(self, **changed)


def pack_bits(values: Tensor) -> Tensor:
    """Returns bool (..., n) as uint8 (..., n / 8 rounded up), the first of eight in the lowest bit; the rest is 1."""
    padded = torch.nn.functional.pad(values, (0, -values.shape[-1] % 8), value=True).unflatten(-1, (-1, 8))
    bits = torch.arange(8, dtype=torch.uint8, device=values.device)
    return (padded.to(torch.uint8) << bits).sum(dim=-1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Returns bool (..., count): what pack_bits was given."""
    bits = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> bits) & 1).bool().flatten(-2)[..., :count]
