"""Decoding of somebody else's language model such that a text is a function of its prompt and seed alone.

transformers samples all rows of a batch from one stream of random numbers, and its repetition penalty counts padding.
Here each row has a stream of its own: with Gumbel noise on the warped logits, the greedy choice is a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prip.errors import InputError
from prip.randomness import random_generator

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


@dataclass(frozen=True)
class Decoding:
    """How a model's tokens are chosen."""

    max_new_tokens: int = 75
    num_beams: int = 1
    """1: no beam search."""
    length_penalty: float = 1.0
    """Exponent of the length by which a beam's log-probability is divided; below 0 shorter texts gain."""
    do_sample: bool = False
    """Whether to sample; else the likeliest token, or with beams the likeliest text."""
    temperature: float = 1.0
    top_k: int = 0
    """Sample from so many tokens at most; 0: from all."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that hold this probability together."""
    min_p: float = 0.0
    """Sample from tokens that have at least this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """What the logits of tokens that were read or written are divided by, negative ones multiplied."""

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("top_k", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name}: wanted a whole number of at least {least}, got {value!r}")
        for name, lowest, highest in (
            ("length_penalty", -100.0, 100.0),
            ("temperature", 1e-3, 100.0),
            ("top_p", 1e-6, 1.0),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", 1e-3, 100.0),
        ):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not lowest <= number <= highest:
                raise InputError(f"{name}: wanted a number from {lowest:g} to {highest:g}, got {number!r}")
        if not isinstance(self.do_sample, bool):
            raise InputError(f"do_sample: wanted true or false, got {self.do_sample!r}")
        if self.do_sample and self.num_beams > 1:
            raise InputError(f"num_beams: sampling has 1, got {self.num_beams}")
        if not self.do_sample:
            self._only_default("do_sample: true", "temperature", "top_k", "top_p", "min_p")
        if self.num_beams == 1:
            self._only_default("num_beams of more than 1", "length_penalty")

    def _only_default(self, wanted: str, *names: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(Decoding, name):
                raise InputError(f"{name}: changes nothing without {wanted}, got {getattr(self, name)!r}")


class RepetitionPenalty:
    """Makes tokens that a row has read or written less likely; its padding is not among them."""

    def __init__(self, penalty: float, real: Tensor) -> None:
        """real: bool (rows, prompt length), False at padding."""
        self.penalty = penalty
        self.real = real

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) for rows that hold input_ids (rows, length) so far."""
        written = input_ids.shape[1] - self.real.shape[1]
        real = torch.cat([self.real, self.real.new_ones(len(self.real), written)], dim=1)
        seen = torch.zeros(scores.shape[0], scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
        seen.scatter_(1, torch.where(real, input_ids, scores.shape[1]), True)
        penalised = torch.where(scores > 0, scores / self.penalty, scores * self.penalty)
        return torch.where(seen[:, :-1], penalised, scores)


class OwnNoise:
    """Adds Gumbel noise to each row, from the row's own generator: the argmax is then a sample of the softmax."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = list(generators)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (rows, vocabulary) with noise; each call goes on in the rows' streams."""
        noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=one) for one in self.generators])
        return scores.float() - noise.log_().to(scores.device)


def processors(decoding: Decoding, real: Tensor, texts: Sequence[str], seeds: Sequence[int]) -> LogitsProcessorList:
    """Return what changes the logits, in transformers' order: repetitions, temperature, top k, top p, min p, noise.

    real: bool (rows, prompt length) of what the decoder reads. texts, seeds: of each row, the key of its noise.
    """
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    made: list[Any] = []
    if decoding.repetition_penalty != 1:
        beams = real.repeat_interleave(decoding.num_beams, dim=0)
        made.append(RepetitionPenalty(float(decoding.repetition_penalty), beams))
    if decoding.do_sample:
        if decoding.temperature != 1:
            made.append(TemperatureLogitsWarper(float(decoding.temperature)))
        if decoding.top_k:
            made.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1:
            made.append(TopPLogitsWarper(float(decoding.top_p)))
        if decoding.min_p:
            made.append(MinPLogitsWarper(float(decoding.min_p)))
        made.append(
            OwnNoise([random_generator("expander", text, seed) for text, seed in zip(texts, seeds, strict=True)])
        )
    return LogitsProcessorList(made)


def padded(rows: Sequence[Sequence[int]], pad: int, on_the_left: bool) -> tuple[Tensor, Tensor]:
    """Return token ids int64 (rows, longest) and the mask bool of the same shape, False at padding."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        where = slice(longest - len(row), None) if on_the_left else slice(len(row))
        ids[place, where], real[place, where] = torch.tensor(row, dtype=torch.long), True
    return ids, real
