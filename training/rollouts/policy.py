"""The policy: samples refinements of user prompts, and recomputes the logits of their actions for the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from prip.decoding.mask_bits import unpack_bits
from prip.modeling import PreferenceEncoder, PripModel, PromptDecoder
from prip.options import RefineOptions
from prip.refiner import Refiner

from .offloading import Offloading

Learner = PreferenceEncoder | PromptDecoder
"""The part that learns: the preference encoder or the prompt decoder"""


@dataclass(frozen=True)
class Refinement:
    """A user prompt and its refinement by the policy."""

    user_prompt: str
    refined_prompt: str
    actions: list[int]
    """Token ids after the prefix, including the end token; empty if the user prompt leaves no room"""
    masks: Tensor | None = field(default=None, repr=False, compare=False)
    """uint8 (actions, vocab / 8 rounded up), on the CPU: the masks under which the actions were sampled, as
    `MaskedActions.masks`; None for actions that were not sampled"""


@dataclass(frozen=True)
class Policy:
    """A refiner with the limits within which the prompt decoder continues each prefix."""

    refiner: Refiner
    max_new_tokens: int
    token_budget: int
    chunk: int = 256
    """User prompts refined at once"""
    offloading: Offloading = field(default_factory=lambda: Offloading({}))
    """Moves the part `decoder`"""

    @property
    def options(self) -> RefineOptions:
        """Options of the sampler. Faults are allowed, because the reward judges them."""
        return RefineOptions(
            top_p=1.0, max_new_tokens=self.max_new_tokens, token_budget=self.token_budget, allow_faults=True
        )

    def refine(
        self, user_prompts: Sequence[str], temperature: float = 0.0, seeds: Sequence[tuple[int, int]] | None = None
    ) -> list[Refinement]:
        """Return one refinement per user prompt.

        Args:
            user_prompts: The prompts.
            temperature: 0 refines greedily, exactly like `Refiner.refine`. Above 0, tokens are sampled under the masks
                alone, which the refinements keep: `action_logits` reproduces the probabilities.
            seeds: (seed, number of the alternative) of each row; needed above temperature 0.
        """
        sampler, options = self.refiner.sampler, replace(self.options, temperature=temperature)
        seeds = seeds if seeds is not None else [(0, 0)] * len(user_prompts)
        refinements: list[Refinement] = []
        with self.offloading.using("decoder"):
            for start in range(0, len(user_prompts), self.chunk):
                rows = slice(start, start + self.chunk)
                prompts, sampled = user_prompts[rows], list[tuple[list[int], Tensor | None]]()
                if temperature == 0:
                    sampled += [(actions, None) for actions in sampler.sample(prompts, seeds[rows], options)]
                else:
                    sampled += sampler.sample_under_masks(prompts, seeds[rows], options)
                refinements += [
                    Refinement(prompt, sampler.text(prompt, actions), actions, masks)
                    for prompt, (actions, masks) in zip(prompts, sampled, strict=True)
                ]
        return refinements

    def has_room(self, user_prompts: Sequence[str]) -> list[bool]:
        """Return whether each user prompt leaves room for a modifier."""
        return self.refiner.sampler.has_room(user_prompts, self.options)

    def collate(self, refinements: Sequence[Refinement]) -> ActionBatch:
        """Return the tensors from which `action_logits` is computed, on the CPU."""
        processor = self.refiner.processor
        prompts = [refinement.user_prompt for refinement in refinements]
        prefixes = [processor.prefix_ids(prompt) for prompt in prompts]
        encoder_ids, encoder_mask = processor.encode_user_prompts(prompts)
        rows, vocabulary = len(refinements), self.refiner.sampler.vocabulary_size
        width = max(
            len(prefix) + len(refinement.actions) for prefix, refinement in zip(prefixes, refinements, strict=True)
        )
        length = max(1, *(len(refinement.actions) for refinement in refinements), 1)
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
        rows_of_batch = zip(prefixes, refinements, self._masks(refinements), strict=True)
        for row, (prefix, refinement, masks) in enumerate(rows_of_batch):
            begin, count = len(prefix), len(refinement.actions)
            batch.input_ids[row, : begin + count] = torch.tensor([*prefix, *refinement.actions])
            batch.attention_mask[row, : begin + count] = 1
            batch.positions[row, :count] = torch.arange(begin, begin + count)
            batch.actions[row, :count] = torch.tensor(refinement.actions, dtype=torch.long)
            batch.mask[row, :count] = True
            batch.allowed_bits[row, :count] = masks
        return batch

    def _masks(self, refinements: Sequence[Refinement]) -> list[Tensor]:
        """Return the masks of each refinement's actions; those that were not sampled are replayed."""
        left = [refinement for refinement in refinements if refinement.masks is None]
        prompts, actions = [refinement.user_prompt for refinement in left], [refinement.actions for refinement in left]
        replayed = iter(self.refiner.sampler.replay(prompts, actions, self.options))
        return [next(replayed) if refinement.masks is None else refinement.masks for refinement in refinements]

    def action_logits(self, part: Learner, batch: ActionBatch) -> tuple[Tensor, Tensor]:
        """Return the logits (batch, length, vocab) and hidden states (batch, length, hidden size) before each action.

        `part` replaces the refiner's own; the gradient reaches an encoder through the frozen decoder.
        """
        current = self.refiner.model
        encoder, decoder = (part, current.decoder) if isinstance(part, PreferenceEncoder) else (current.encoder, part)
        model = PripModel(encoder, decoder)
        pivot = model.pivot(batch.encoder_ids, batch.encoder_mask)
        output = model.decoder(pivot, batch.input_ids, batch.attention_mask)
        positions = batch.positions.unsqueeze(-1)
        logits = output.logits.gather(1, positions.expand(-1, -1, output.logits.shape[-1]))
        return logits, output.hidden.gather(1, positions.expand(-1, -1, output.hidden.shape[-1]))


@dataclass(frozen=True)
class ActionBatch:
    """Refinements as tensors; rows are padded on the right."""

    encoder_ids: Tensor
    """int64 (batch, user prompt length): tokens of the user prompt, for the preference encoder"""
    encoder_mask: Tensor
    """int64, as encoder_ids; 1 = token"""
    input_ids: Tensor
    """int64 (batch, width): prefix and actions, for the prompt decoder"""
    attention_mask: Tensor
    """int64 (batch, width); 1 = token"""
    positions: Tensor
    """int64 (batch, length): index of each action in input_ids"""
    actions: Tensor
    """int64 (batch, length)"""
    mask: Tensor
    """bool (batch, length): True where an action was taken"""
    allowed_bits: Tensor
    """uint8 (batch, length, vocab / 8 rounded up): `allowed`, packed because it is larger than everything else"""
    vocabulary: int

    @property
    def allowed(self) -> Tensor:
        """Tokens allowed for each action, bool (batch, length, vocab), True = allowed; unpacked at every access."""
        return unpack_bits(self.allowed_bits, self.vocabulary)

    def __len__(self) -> int:
        return len(self.actions)

    def to(self, device: torch.device) -> ActionBatch:
        """Return the batch on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def rows(self, rows: Tensor) -> ActionBatch:
        """Return the rows with the indices `rows`, int64 (n,)."""
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> ActionBatch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)
