"""Compare speed with the usual prompt expander, a GPT-2 (124M) in transformers' text-generation pipeline.

    python -m benchmarks.expander_peer

The peer has random weights (which do not affect speed), prip-mini's vocabulary and greedy decoding, and adds as many
tokens to each prompt as prip-mini does. Since the pipeline adds equally many to all prompts of a batch, batches consist
of prompts to which prip-mini adds equally many. Both run in turns, and the ratio is the median over turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from transformers import GPT2Config, GPT2LMHeadModel, pipeline
from transformers.utils import logging

from benchmarks.common import make_parser, table_head, table_row
from prip import Refiner
from prip.miniature.vocabulary import PLACES, SUBJECTS
from prip.options import RefineOptions

PROMPTS = [f"a {subject.name} {place.user_phrases[0]}" for subject in SUBJECTS for place in PLACES]


def added_tokens(refiner: Refiner, prompts: Sequence[str]) -> dict[str, int]:
    """Return the number of tokens that the refiner adds to each prompt, including the end token."""
    seeds = [(0, 0)] * len(prompts)
    actions = refiner.sampler.sample(prompts, seeds, RefineOptions(allow_faults=True))
    return {prompt: len(tokens) for prompt, tokens in zip(prompts, actions, strict=True)}


def even_batches(tokens: dict[str, int], size: int) -> list[list[str]]:
    """Return batches of `size` prompts with equal numbers of tokens, in ascending order of that number."""
    groups: dict[int, list[str]] = {}
    for prompt, count in tokens.items():
        groups.setdefault(count, []).append(prompt)
    return [
        group[start : start + size]
        for _, group in sorted(groups.items())
        for start in range(0, len(group) - size + 1, size)
    ]


def peer_of(refiner: Refiner) -> Callable[[Sequence[str], int], None]:
    """Return the peer, a function that continues a batch of prompts by a number of tokens."""
    tokenizer = refiner.processor.decoder_tokenizer
    end = tokenizer.eos_token_id
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end)).eval()
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    generate = pipeline("text-generation", model=model, tokenizer=tokenizer)

    def expand(prompts: Sequence[str], tokens: int) -> None:
        lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens}
        generate([f"{prompt}," for prompt in prompts], batch_size=len(prompts), do_sample=False, **lengths)

    return expand


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of both (default: 5)")
    parser.add_argument("--batch", type=int, default=32, help="prompts per batch (default: 32, at most about 60)")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    refiner = Refiner.from_pretrained("prip-mini", device="cpu")
    expand = peer_of(refiner)
    tokens = added_tokens(refiner, PROMPTS)
    if not even_batches(tokens, arguments.batch):
        parser.error(f"--batch: expected fewer prompts, got {arguments.batch}: no batch has equal numbers of tokens")
    print(table_head(["batch size", "tokens per prompt", "PRIP, ms per prompt", "peer, ms per prompt", "ratio"]))
    for size in (1, arguments.batch):
        batches = even_batches(tokens, size)
        turns: list[tuple[int, float, float]] = []
        for turn in range(arguments.rounds + 1):
            prompts = batches[turn * len(batches) // (arguments.rounds + 1)]
            began = time.perf_counter()
            refiner.refine(prompts)
            between = time.perf_counter()
            expand(prompts, tokens[prompts[0]])
            turns.append((tokens[prompts[0]], (between - began) / size, (time.perf_counter() - between) / size))
        del turns[0]  # the warm-up
        count = statistics.mean(turn[0] for turn in turns)
        milliseconds = [1000 * statistics.median(turn[index] for turn in turns) for index in (1, 2)]
        ratio = statistics.median(peer / prip for _, prip, peer in turns)
        print(table_row([size, *(f"{value:.1f}" for value in (count, *milliseconds, ratio))]), flush=True)


if __name__ == "__main__":
    main()
