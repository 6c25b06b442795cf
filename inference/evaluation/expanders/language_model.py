"""`causal-lm` and `seq2seq-lm`: language models of the Hub as prompt expanders, with template and decoding options."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from prip.errors import CheckpointError, InputError
from prip.options import check_whole

from ..kinds.registry import Context
from .answers import RefinementError, Wording
from .decoding import Decoding, padded, processors
from .loading import load_language_model, load_tokenizer_of


class LanguageModelRefiner:
    """Refines with a language model; a text depends on its prompt alone and, when sampled, on its seed."""

    def __init__(
        self, name: str, model: Any, tokenizer: Any, wording: Wording, *, decoding: Decoding, batch_size: int = 16
    ) -> None:
        """model: causal or sequence-to-sequence, frozen. batch_size: prompts that are decoded at a time."""
        check_whole("batch_size", batch_size, 1)
        self.name = name
        self.sampled = decoding.do_sample
        self.model = model
        self.tokenizer = tokenizer
        self.wording = wording
        self.decoding = decoding
        self.batch_size = batch_size
        self._ends = _end_tokens(model, tokenizer)
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else self._ends[0] if self._ends else 0

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return a refined prompt for each (user prompt, seed).

        Raises:
            RefinementError: No beam of a prompt holds a refined prompt.
            InputError: A prompt is too long for the model.
        """
        texts = [self.wording.ask(prompt) for prompt in user_prompts]
        token_rows = [self._tokens(text) for text in texts]
        refined = [""] * len(texts)
        order = sorted(range(len(texts)), key=lambda index: len(token_rows[index]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            answers = self._answers(
                [token_rows[index] for index in batch],
                [texts[index] for index in batch],
                [seeds[index] for index in batch],
            )
            for index, beams in zip(batch, answers, strict=True):
                refined[index] = self._first_refined(user_prompts[index], beams)
        return refined

    def _first_refined(self, user_prompt: str, answers: Sequence[str]) -> str:
        """Return the refined prompt of the best beam that holds one."""
        for answer in answers[:-1]:
            with suppress(RefinementError):
                return self.wording.refined(user_prompt, answer)
        return self.wording.refined(user_prompt, answers[-1])

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        needed = len(ids) + (0 if self.model.config.is_encoder_decoder else self.decoding.max_new_tokens)
        if limit and needed > limit:
            raise InputError(
                f"{self.name}: expected at most {limit} tokens with the answer, got {needed}: {text[:200]!r}"
            )
        if not ids:
            raise InputError(f"{self.name}: expected a text with tokens, got {text[:200]!r}")
        return ids

    @torch.no_grad()
    def _answers(self, rows: Sequence[list[int]], texts: Sequence[str], seeds: Sequence[int]) -> list[list[str]]:
        """Return the model's answers to each row of tokens: all beams, the best first."""
        from transformers import GenerationConfig

        decoding, device = self.decoding, self.model.device
        is_seq2seq = self.model.config.is_encoder_decoder
        ids, mask = padded(rows, self._pad, on_the_left=not is_seq2seq)
        decoder_mask = torch.ones(len(rows), 1, dtype=torch.bool) if is_seq2seq else mask
        settings = GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            num_return_sequences=decoding.num_beams,
            length_penalty=decoding.length_penalty,
            do_sample=False,  # `OwnNoise` samples
            eos_token_id=self._ends or None,
            pad_token_id=self._pad,
            decoder_start_token_id=self.model.generation_config.decoder_start_token_id,
            stop_strings=list(self.wording.stop) or None,
        )
        output: Tensor = self.model.generate(
            ids.to(device),
            attention_mask=mask.long().to(device),
            generation_config=settings,
            logits_processor=processors(decoding, decoder_mask.to(device), texts, seeds),
            tokenizer=self.tokenizer,
        )
        new = output[:, 1:] if is_seq2seq else output[:, ids.shape[1] :]
        beams = new.reshape(len(rows), decoding.num_beams, -1).tolist()
        read: Sequence[list[int]] = [[] for _ in rows] if is_seq2seq else rows
        return [[self._written(before, beam) for beam in row] for before, row in zip(read, beams, strict=True)]

    def _written(self, before: list[int], new: list[int]) -> str:
        """Return the text of new tokens with its leading space, which some tokenizers drop at the start of a text."""
        end = next((index for index, token in enumerate(new) if token in self._ends), len(new))
        start, whole = self._text(before), self._text([*before, *new[:end]])
        return whole[len(start) :] if whole.startswith(start) else self._text(new[:end])

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end a text according to the generation config, or else the tokenizer."""
    named = model.generation_config.eos_token_id
    named = tokenizer.eos_token_id if named is None else named
    return [] if named is None else [named] if isinstance(named, int) else list(named)


@dataclass(frozen=True)
class ModelSource:
    """Where a language model is loaded from."""

    place: str
    """FOLDER or OWNER/NAME[@REVISION]."""
    tokenizer: str = ""
    """The tokenizer's place, if it differs."""
    dtype: str = "float32"
    """Precision of the model."""

    def load(self, name: str, kind: Literal["causal", "seq2seq"], device: str) -> tuple[Any, Any]:
        """Load the model and its tokenizer; decoding options of the model's own generation config are dropped."""
        from transformers import GenerationConfig

        model: Any = load_language_model(self.place, kind, self.dtype, device)
        own = model.generation_config
        model.generation_config = GenerationConfig(
            eos_token_id=own.eos_token_id, decoder_start_token_id=own.decoder_start_token_id
        )
        tokenizer = load_tokenizer_of(self.tokenizer or self.place)
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            raise CheckpointError(
                f"{name}: the tokenizer of {self.tokenizer or self.place} has more tokens than the model, {self.place}"
            )
        return model, tokenizer


def make_causal_lm(
    name: str, context: Context, *, source: ModelSource, wording: Wording, decoding: Decoding, batch_size: int = 16
) -> LanguageModelRefiner:
    """The kind `causal-lm`: a causal language model. batch_size: prompts decoded at a time.

    The other options are the fields of the three dataclasses.
    """
    model, tokenizer = source.load(name, "causal", context.device)
    return LanguageModelRefiner(name, model, tokenizer, wording, decoding=decoding, batch_size=batch_size)


def make_seq2seq_lm(
    name: str, context: Context, *, source: ModelSource, wording: Wording, decoding: Decoding, batch_size: int = 16
) -> LanguageModelRefiner:
    """The kind `seq2seq-lm`: a model like T5; its answer replaces the prompt. Options as for `causal-lm`."""
    for option, value in (("keep_prompt", wording.keep_prompt), ("after", wording.after)):
        if value:
            raise InputError(f"{option}: expected none for a seq2seq-lm, got {value!r}")
    model, tokenizer = source.load(name, "seq2seq", context.device)
    return LanguageModelRefiner(name, model, tokenizer, wording, decoding=decoding, batch_size=batch_size)
