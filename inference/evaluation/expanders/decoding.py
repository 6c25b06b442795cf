"""Decoding of third-party language models in which a text depends on its prompt and seed alone.

transformers samples all rows of a batch from one stream of random numbers, and its repetition penalty counts padding.
Here each row has its own stream: with Gumbel noise on the warped logits, the greedy choice is a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prip.errors import InputError
from prip.options import check_whole
from prip.randomness import random_generator


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen."""

    max_new_tokens: int = 75
    num_beams: int = 1
    """1 disables beam search."""
    length_penalty: float = 1.0
    """Exponent of the length that divides a beam's log-probability; values below 0 favour shorter texts."""
    do_sample: bool = False
    """Whether to sample instead of taking the likeliest token, or with beams the likeliest text."""
    temperature: float = 1.0
    top_k: int = 0
    """Sample from at most this many tokens; 0 is no limit."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Sample from tokens with at least this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens that were read or written, and multiplies the negative ones."""

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("top_k", 0)):
            check_whole(name, getattr(self, name), least)
        for name, lowest, highest in (
            ("length_penalty", -100.0, 100.0),
            ("temperature", 1e-3, 100.0),
            ("top_p", 1e-6, 1.0),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", 1e-3, 100.0),
        ):
            if not lowest <= getattr(self, name) <= highest:
                raise InputError(
                    f"{name}: expected a number from {lowest:g} to {highest:g}, got {getattr(self, name)!r}"
                )
        if self.do_sample and self.num_beams > 1:
            raise InputError(f"num_beams: expected 1 with do_sample, got {self.num_beams}")
        if not self.do_sample:
            self._only_default("do_sample: true", "temperature", "top_k", "top_p", "min_p")
        if self.num_beams == 1:
            self._only_default("num_beams above 1", "length_penalty")

    def _only_default(self, condition: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(Decoding, name):
                expected = f"expected {getattr(Decoding, name)} without {condition}"
                raise InputError(f"{name}: {expected}, got {getattr(self, name)!r}")


class RepetitionPenalty:
    """Makes tokens that a row has read or written less likely, ignoring its padding."""

    def __init__(self, penalty: float, real: Tensor) -> None:
        """real: bool (rows, prompt length), False at padding."""
        self.penalty = penalty
        self.real = real

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) given the tokens input_ids (rows, length) so far."""
        written = input_ids.shape[1] - self.real.shape[1]
        real = torch.cat([self.real, self.real.new_ones(len(self.real), written)], dim=1)
        seen = torch.zeros(scores.shape[0], scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
        seen.scatter_(1, torch.where(real, input_ids, scores.shape[1]), True)
        penalised = torch.where(scores > 0, scores / self.penalty, scores * self.penalty)
        return torch.where(seen[:, :-1], penalised, scores)


class OwnNoise:
    """Adds Gumbel noise to each row from the row's own generator, so that the argmax is a sample of the softmax."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) with noise; each call continues the rows' streams."""
        noise = torch.stack(
            [torch.empty(scores.shape[1]).exponential_(generator=generator) for generator in self.generators]
        )
        return scores.float() - noise.log_().to(scores.device)


def processors(decoding: Decoding, real: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> LogitsProcessorList:
    """Return the logits processors in transformers' order: repetition, temperature, top k, top p, min p, noise.

    A row's text and seed determine its noise. real: bool (rows, prompt length), False at the decoder's padding.
    """
    chain: list[Any] = []
    if decoding.repetition_penalty != 1:
        beams = real.repeat_interleave(decoding.num_beams, dim=0)
        chain.append(RepetitionPenalty(float(decoding.repetition_penalty), beams))
    if decoding.do_sample:
        if decoding.temperature != 1:
            chain.append(TemperatureLogitsWarper(float(decoding.temperature)))
        if decoding.top_k:
            chain.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1:
            chain.append(TopPLogitsWarper(float(decoding.top_p)))
        if decoding.min_p:
            chain.append(MinPLogitsWarper(float(decoding.min_p)))
        chain.append(
            OwnNoise([random_generator("expander", text, seed) for text, seed in zip(texts, seeds, strict=True)])
        )
    return LogitsProcessorList(chain)


def padded(rows: Sequence[Sequence[int]], pad: int, on_the_left: bool) -> tuple[Tensor, Tensor]:
    """Return token ids int64 (rows, longest) and the mask bool of the same shape, False at padding."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for index, row in enumerate(rows):
        columns = slice(longest - len(row), None) if on_the_left else slice(len(row))
        ids[index, columns], real[index, columns] = torch.tensor(row, dtype=torch.long), True
    return ids, real
