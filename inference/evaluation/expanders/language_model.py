"""`causal-lm` and `seq2seq-lm`: language models of the Hub as prompt expanders, each with its template and decoding."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from prip.errors import CheckpointError, InputError

from ..kinds.registry import Context
from .answers import RefinementError, Wording
from .decoding import Decoding, padded, processors
from .loading import load_language_model, load_tokenizer_of


class LanguageModelRefiner:
    """Refines by a language model; a text is a function of the prompt and, when it samples, the seed."""

    def __init__(
        self, name: str, model: Any, tokenizer: Any, wording: Wording, decoding: Decoding, batch_size: int = 16
    ) -> None:
        """model: causal or sequence to sequence, frozen. batch_size: prompts that are decoded at a time."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size: wanted a whole number of at least 1, got {batch_size!r}")
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

        Raises RefinementError where the model gives nothing to refine with, InputError for a prompt too long for it.
        """
        asked = [self.wording.ask(prompt) for prompt in user_prompts]
        rows = [self._tokens(text) for text in asked]
        refined = [""] * len(rows)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            texts = [asked[place] for place in places]
            answers = self._answers([rows[place] for place in places], texts, [seeds[place] for place in places])
            for place, own in zip(places, answers, strict=True):
                refined[place] = self._first_refined(user_prompts[place], own)
        return refined

    def _first_refined(self, user_prompt: str, answers: Sequence[str]) -> str:
        """Return what the best beam that holds a prompt makes of the user prompt."""
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
                f"{self.name}: {text[:200]!r} needs {needed} tokens with its answer, the model has {limit}"
            )
        if not ids:
            raise InputError(f"{self.name}: nothing is left of {text[:200]!r} as tokens")
        return ids

    @torch.no_grad()
    def _answers(self, rows: Sequence[list[int]], texts: Sequence[str], seeds: Sequence[int]) -> list[list[str]]:
        """Return what the model writes after each row of tokens: all its beams, the best first."""
        from transformers import GenerationConfig

        decoding, device = self.decoding, self.model.device
        is_seq2seq = self.model.config.is_encoder_decoder
        ids, real = padded(rows, self._pad, on_the_left=not is_seq2seq)
        reads = torch.ones(len(rows), 1, dtype=torch.bool) if is_seq2seq else real
        settings = GenerationConfig(
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            num_return_sequences=decoding.num_beams,
            length_penalty=decoding.length_penalty,
            do_sample=False,  # samples come by `OwnNoise`
            eos_token_id=self._ends or None,
            pad_token_id=self._pad,
            decoder_start_token_id=self.model.generation_config.decoder_start_token_id,
            stop_strings=list(self.wording.stop) or None,
        )
        made: Tensor = self.model.generate(
            ids.to(device),
            attention_mask=real.long().to(device),
            generation_config=settings,
            logits_processor=processors(decoding, reads.to(device), texts, seeds),
            tokenizer=self.tokenizer,
        )
        new = made[:, 1:] if is_seq2seq else made[:, ids.shape[1] :]
        beams = new.reshape(len(rows), decoding.num_beams, -1).tolist()
        before: Sequence[list[int]] = [[] for _ in rows] if is_seq2seq else rows
        return [[self._written(read, one) for one in own] for read, own in zip(before, beams, strict=True)]

    def _written(self, before: list[int], new: list[int]) -> str:
        """Return the text of new tokens with the space that begins it: some tokenizers drop it from a text's start."""
        end = next((place for place, token in enumerate(new) if token in self._ends), len(new))
        start, whole = self._text(before), self._text([*before, *new[:end]])
        return whole[len(start) :] if whole.startswith(start) else self._text(new[:end])

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end a text, as the model's generation config says, or else the tokenizer."""
    named = model.generation_config.eos_token_id
    named = tokenizer.eos_token_id if named is None else named
    return [] if named is None else [named] if isinstance(named, int) else list(named)


def _make(
    kind: str,
    name: str,
    context: Context,
    place: str,
    tokenizer: str,
    wording: Wording,
    decoding: Decoding,
    batch_size: int,
    dtype: str,
) -> LanguageModelRefiner:
    """Load what a kind names. The model's own decoding settings, of its generation config, play no part."""
    from transformers import GenerationConfig

    model = load_language_model(place, kind, dtype, context.device)
    own = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=own.eos_token_id, decoder_start_token_id=own.decoder_start_token_id
    )
    words = load_tokenizer_of(tokenizer or place)
    if len(words) > model.get_input_embeddings().weight.shape[0]:
        raise CheckpointError(
            f"{name}: the tokenizer of {tokenizer or place} has more tokens than the model of {place}"
        )
    return LanguageModelRefiner(name, model, words, wording, decoding, batch_size)


def make_causal_lm(
    name: str,
    context: Context,
    *,
    place: str,
    tokenizer: str = "",
    template: str = "{prompt}",
    keep_prompt: bool = False,
    after: str = "",
    stop: Sequence[str] = (),
    first_line: bool = True,
    max_new_tokens: int = 75,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    batch_size: int = 16,
    dtype: str = "float32",
) -> LanguageModelRefiner:
    """The kind `causal-lm`: a causal language model by folder or Hub id, `place` being FOLDER, OWNER/NAME[@REVISION].

    tokenizer: where the tokenizer lies, if elsewhere. The rest: fields of `Wording` and `Decoding`.
    """
    wording = Wording(template, keep_prompt, after, stop, first_line)
    decoding = Decoding(
        max_new_tokens, num_beams, length_penalty, do_sample, temperature, top_k, top_p, min_p, repetition_penalty
    )
    return _make("causal", name, context, place, tokenizer, wording, decoding, batch_size, dtype)


def make_seq2seq_lm(
    name: str,
    context: Context,
    *,
    place: str,
    tokenizer: str = "",
    template: str = "{prompt}",
    stop: Sequence[str] = (),
    first_line: bool = True,
    max_new_tokens: int = 75,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    batch_size: int = 16,
    dtype: str = "float32",
) -> LanguageModelRefiner:
    """The kind `seq2seq-lm`: a T5-like model, whose answer takes the prompt's place; options as of `causal-lm`."""
    wording = Wording(template, stop=stop, first_line=first_line)
    decoding = Decoding(
        max_new_tokens, num_beams, length_penalty, do_sample, temperature, top_k, top_p, min_p, repetition_penalty
    )
    return _make("seq2seq", name, context, place, tokenizer, wording, decoding, batch_size, dtype)
