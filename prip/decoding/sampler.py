"""Sampling what is added to user prompts: preference encoder, prompt decoder and constraints in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..options import RefineOptions
from ..text.clip_tokens import CLIP_TOKEN_LIMIT, count_clip_tokens
from ..text.prompts import join, own_words
from .constraints import Constraints
from .decode import decode
from .mask_bits import pack_bits
from .row_state import Row
from .sampling import row_generator

if TYPE_CHECKING:
    from ..modeling import PripModel
    from ..processing import PripProcessor
    from ..text.token_counter import TokenCounter

REPLAYED_AT_ONCE = 16
"""Prompts whose masks are bool `(batch, length, vocabulary)` at once"""


class MaskedActions(NamedTuple):
    """What the prompt decoder adds to a prompt, and what it could have added at each step."""

    actions: list[int]
    """Token ids that end with the end token; none if the prompt leaves no room"""
    masks: Tensor
    """uint8 `(actions, vocabulary / 8 rounded up)`, on the CPU: the tokens that each was drawn from, by `pack_bits`"""


class PromptSampler:
    """Samples the tokens that a model adds to user prompts, under the constraints on a system prompt.

    Refining, reinforcement learning and step-wise refinement share it.
    """

    def __init__(self, model: PripModel, processor: PripProcessor, counter: TokenCounter | None = None) -> None:
        """Build the constraints of a model's vocabulary.

        Args:
            model: Preference encoder and prompt decoder. Sampling needs them in evaluation mode.
            processor: Their tokenizers.
            counter: Counts the token budget, and limits it where `RefineOptions.token_budget` is None. None counts as
                CLIP does.

        Raises:
            CheckpointError: A part of the model has no tokenizer, or a smaller vocabulary than its tokenizer.
        """
        _check_vocabularies(model, processor)
        self.model = model
        self.processor = processor
        self.counter = counter
        self.constraints = Constraints(
            processor.decoder_tokenizer,
            count_tokens=count_clip_tokens if counter is None else counter,
            token_limit=CLIP_TOKEN_LIMIT if counter is None else counter.limit,
            modifier_tokens=model.decoder.config.modifier_tokens,
            vocabulary_size=model.decoder.lm.get_output_embeddings().weight.shape[0],
            positions_after=_positions_after(model, processor),
        )

    @property
    def token_limit(self) -> int:
        """Token budget of options that set none."""
        return self.constraints.token_limit

    @property
    def vocabulary_size(self) -> int:
        """Width of the prompt decoder's logits."""
        return self.constraints.table.size

    @property
    def separator(self) -> int:
        """Token between two modifiers."""
        return self.constraints.table.separator

    @torch.no_grad()
    def sample(
        self,
        user_prompts: Sequence[str],
        seeds: Sequence[tuple[int, int]],
        options: RefineOptions,
        whole_modifiers: bool = True,
        contexts: Sequence[str] = (),
    ) -> list[list[int]]:
        """Return the tokens that the prompt decoder adds to each prompt.

        Args:
            user_prompts: The prompts, styles included: `options.styles` is not read.
            seeds: (seed, number of the alternative) for each prompt: `options.seed` is not read.
            options: Temperature, top_p and constraints.
            whole_modifiers: Whether a modifier that the constraints would cut short is dropped, as `decode` says.
            contexts: For each prompt a text that what is added must agree with too; empty for none.

        Returns:
            For each prompt its actions: token ids that end with the end token, or none if the prompt leaves no room.
        """
        rows = self.constraints.begin(user_prompts, options, contexts)
        return self._decode(rows, user_prompts, seeds, options, whole_modifiers)

    @torch.no_grad()
    def sample_under_masks(
        self, user_prompts: Sequence[str], seeds: Sequence[tuple[int, int]], options: RefineOptions
    ) -> list[MaskedActions]:
        """Return the tokens that `sample` draws without `whole_modifiers`, with the masks that they were drawn under.

        Reinforcement learning computes the probabilities of the tokens again under these masks.
        """
        rows = self.constraints.begin(user_prompts, options)
        actions = self._decode(rows, user_prompts, seeds, options, whole_modifiers=False)
        none = torch.empty(0, -(-self.vocabulary_size // 8), dtype=torch.uint8)
        return [
            MaskedActions(tokens, torch.stack(row.masks) if row.masks else none)
            for tokens, row in zip(actions, rows, strict=True)
        ]

    def _decode(
        self,
        rows: Sequence[Row],
        user_prompts: Sequence[str],
        seeds: Sequence[tuple[int, int]],
        options: RefineOptions,
        whole_modifiers: bool,
    ) -> list[list[int]]:
        """Return the actions of each prompt as `sample` does, and advance its row to their end."""
        prefixes = [self.processor.prefix_ids(prompt) for prompt in user_prompts]
        fitting = [index for index, row in enumerate(rows) if not row.full]
        actions: list[list[int]] = [[] for _ in user_prompts]
        if not fitting:
            return actions
        input_ids, mask = self.processor.encode_user_prompts([user_prompts[index] for index in fitting])
        pivot = self.model.pivot(input_ids.to(self.model.device), mask.to(self.model.device))
        decoded = decode(
            self.model.decoder,
            self.constraints,
            pivot=pivot,
            prefix_ids=[prefixes[index] for index in fitting],
            rows=[rows[index] for index in fitting],
            options=options,
            generators=[
                row_generator(seeds[index][0], own_words(user_prompts[index]), seeds[index][1]) for index in fitting
            ],
            whole_modifiers=whole_modifiers,
        )
        for index, tokens in zip(fitting, decoded, strict=True):
            actions[index] = tokens
        return actions

    def replay(
        self, user_prompts: Sequence[str], actions: Sequence[Sequence[int]], options: RefineOptions
    ) -> list[Tensor]:
        """Return the masks of each prompt's actions as `MaskedActions.masks`, made as `Constraints.replay` does."""
        masks: list[Tensor] = []
        for start in range(0, len(actions), REPLAYED_AT_ONCE):
            chunk = slice(start, start + REPLAYED_AT_ONCE)
            replayed = pack_bits(self.constraints.replay(user_prompts[chunk], actions[chunk], options))
            masks += [packed[: len(own)] for packed, own in zip(replayed, actions[chunk], strict=True)]
        return masks

    def text(self, user_prompt: str, actions: Sequence[int]) -> str:
        """Return the refined prompt that actions make of a user prompt; without actions, the user prompt itself."""
        return join(user_prompt, self.processor.decode(actions)) if actions else user_prompt

    def has_room(self, user_prompts: Sequence[str], options: RefineOptions) -> list[bool]:
        """Return for each prompt whether it leaves room for a modifier."""
        return [not row.full for row in self.constraints.begin(user_prompts, options)]


def _positions_after(model: PripModel, processor: PripProcessor) -> Callable[[str], int] | None:
    """Return what counts the prompt decoder's positions after a user prompt; None if there is no limit."""
    config, limit = model.decoder.config, getattr(model.decoder.lm.config, "max_position_embeddings", None)
    head = len(config.template_before_ids or ()) + len(config.template_after_ids or ()) + config.pivot_length
    return None if limit is None else partial(_positions_left, processor, limit - head)


def _positions_left(processor: PripProcessor, positions: int, user_prompt: str) -> int:
    return positions - len(processor.prefix_ids(user_prompt))


def _check_vocabularies(model: PripModel, processor: PripProcessor) -> None:
    """Raise CheckpointError unless each part has a tokenizer, and an embedding for each of its tokens."""
    for part, tokenizer, reader in (
        ("encoder", processor.encoder_tokenizer, model.encoder and model.encoder.t5),
        ("decoder", processor.decoder_tokenizer, model.decoder.lm),
    ):
        if (tokenizer is None) != (reader is None):
            raise CheckpointError(f"{part}: expected both a model and a tokenizer, or neither")
        if tokenizer is None or reader is None:
            continue
        size: int = reader.get_input_embeddings().num_embeddings  # type: ignore[assignment]
        if len(tokenizer) > size:
            raise CheckpointError(f"{part}: expected at most {size:,} tokens in its tokenizer, got {len(tokenizer):,}")
