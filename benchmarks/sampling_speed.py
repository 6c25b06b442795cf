"""What sampling costs beside the prompt decoder's own step, at real vocabulary sizes, now and before.

    OMP_NUM_THREADS=2 python -m benchmarks.sampling_speed

The decoder has random weights, 2 layers and a hidden size of 2,048, and runs on the CPU in float32. Before, the noise
was one number for each entry of the vocabulary, and near the token budget a mask counted every token that could
continue a word. The last columns are a whole chunk of gibberish: random logits, nothing cached, no decoder.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import LlamaConfig

from benchmarks.common import make_parser, table_head, table_row
from prip.decoding import decode as decoding
from prip.decoding.constraints import Constraints
from prip.decoding.llama_step import LlamaStep
from prip.decoding.sampling import drawn, row_generator
from prip.decoding.token_budget import EXACT_BELOW, TokenBudget
from prip.modeling import PromptDecoder
from prip.options import RefineOptions
from prip.text.clip_tokens import count_clip_tokens
from prip.training.real_vocabulary import real_vocabulary

PROMPTS = [f"a {noun} {place}" for noun in ("cat", "dog", "boat", "castle") for place in ("at night", "in the rain")]
OPTIONS = RefineOptions(temperature=1.0, top_p=1.0, max_new_tokens=60, token_budget=75, allow_faults=True)
HEAD = table_head(
    [
        "vocabulary",
        "decoder's step",
        "noise before",
        "noise",
        "share of the step",
        "masks before",
        "masks",
        "share of the step",
        "gibberish chunk before",
        "gibberish chunk",
    ]
)


def gumbel(generators: Sequence[torch.Generator], width: int) -> torch.Tensor:
    """Return Gumbel noise as it was drawn before, a number for each entry of the vocabulary."""
    noise = torch.stack([torch.empty(width).exponential_(generator=generator) for generator in generators])
    return noise.log_().neg_()


class CountingBudget(TokenBudget):
    """The token budget as it was: near its end every doubtful token is counted, whatever the vocabulary."""

    def going_on(self, chunk: str, free: int, candidates: Sequence[int] = ()) -> np.ndarray:
        table, bytes_free = self._table, self._bytes_free(chunk, free)
        mask = (table.cost <= free) | (table.bytes <= bytes_free)
        if bytes_free < EXACT_BELOW:
            doubtful = np.flatnonzero(table.continues & ~mask)
            mask[doubtful] = self._growth(chunk, doubtful) <= free
        return mask


class RandomStream:
    """Random logits instead of a decoder's: independent of the text, as of one that has learned nothing."""

    def __init__(self, decoder: torch.Generator, pivot: object, texts: Sequence[object]) -> None:
        self.source, self.rows = decoder, len(texts)

    def first(self) -> torch.Tensor:
        return torch.randn(self.rows, self.width, generator=self.source)

    def next(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.randn(len(tokens), self.width, generator=self.source)

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = len(rows)

    width = 0


class NoDecoder(torch.Generator):
    """In place of a decoder: a source of random logits."""

    training = False


def median(function: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def decoder_step(tokenizer, size: int, rows: int, hidden: int, rounds: int) -> float:
    """Return the seconds of the decoder's step for one token of each row, after 64 tokens."""
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=hidden,
        intermediate_size=11 * hidden // 4,
        num_hidden_layers=2,
        num_attention_heads=hidden // 128,
        tie_word_embeddings=True,
        max_position_embeddings=512,
    )
    decoder = PromptDecoder.from_lm(config, tokenizer, 32, 768).eval()
    assert LlamaStep.supports(decoder.lm)
    with torch.no_grad():
        stream = decoding._Stream(decoder, torch.zeros(rows, 32, 768), [[5] * 32] * rows)
        stream.first()
        return median(lambda: stream.next(torch.full((rows,), 7)), rounds)


def gibberish(constraints: Constraints, size: int, rows: int) -> tuple[float, float]:
    """Sample a chunk from random logits; return its seconds without making the logits, and those of its masks alone."""
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    spent, steps = [0.0], [0]
    real = constraints.allowed

    def allowed(*arguments):
        began = time.perf_counter()
        result = real(*arguments)
        spent[0] += time.perf_counter() - began
        steps[0] += 1
        return result

    class Stream(RandomStream):
        width = size
        making = 0.0

        def next(self, tokens):
            began = time.perf_counter()
            logits = super().next(tokens)
            Stream.making += time.perf_counter() - began
            return logits

    decoder: Any = NoDecoder().manual_seed(0)
    began = time.perf_counter()
    with patch.object(decoding, "_Stream", Stream), patch.object(constraints, "allowed", allowed):
        decoding.decode(
            decoder,
            constraints,
            pivot=None,
            prefix_ids=[[1]] * rows,
            rows=constraints.begin(prompts, OPTIONS),
            options=OPTIONS,
            generators=[row_generator(0, prompt, number) for number, prompt in enumerate(prompts)],
            whole_modifiers=False,
        )
    return time.perf_counter() - began - Stream.making, spent[0] / steps[0]


def measure(size: int, rows: int, hidden: int, rounds: int, rows_before: int) -> str:
    """Return the table row of a vocabulary."""
    tokenizer = real_vocabulary(size)
    step = decoder_step(tokenizer, size, rows, hidden, rounds)
    generators = [row_generator(row, "a cat") for row in range(rows)]
    scores = torch.randn(rows, size)
    noise_before = median(lambda: (scores + gumbel(generators, size)).topk(4), rounds)

    def draw() -> torch.Tensor:
        uniforms = torch.stack([torch.rand(4, generator=source, dtype=torch.float64) for source in generators])
        return drawn(scores, uniforms, torch.zeros(rows, dtype=torch.bool))

    noise = median(draw, rounds)
    constraints = Constraints(tokenizer, vocabulary_size=size)
    chunk, masks = gibberish(constraints, size, rows)
    before = Constraints(tokenizer, vocabulary_size=size)
    before._budget = CountingBudget(before.table, count_clip_tokens)
    chunk_before, masks_before = (seconds * rows / rows_before for seconds in gibberish(before, size, rows_before))
    return table_row(
        [
            f"{size:,}",
            f"{1000 * step:.0f} ms",
            f"{1000 * noise_before:.1f} ms",
            f"{1000 * noise:.1f} ms",
            f"{noise / step:.3f}",
            f"{1000 * masks_before:,.0f} ms",
            f"{1000 * masks:.1f} ms",
            f"{masks / step:.3f}",
            f"{chunk_before:,.0f} s",
            f"{chunk:.1f} s",
        ]
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 152_000], help="entries of each")
    parser.add_argument("--rows", type=int, default=64, help="rows of a chunk (default: 64)")
    parser.add_argument("--hidden", type=int, default=2048, help="the decoder's hidden size (default: 2,048)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each; the median counts (default: 5)")
    parser.add_argument(
        "--rows-before", type=int, default=1, help="rows by which the former chunk is measured (default: 1)"
    )
    arguments = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    print(HEAD)
    for size in arguments.vocabularies:
        print(measure(size, arguments.rows, arguments.hidden, arguments.rounds, arguments.rows_before), flush=True)


if __name__ == "__main__":
    main()
