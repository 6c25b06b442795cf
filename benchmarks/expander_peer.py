"""Speed beside the usual prompt expander: a GPT-2 of 124M parameters behind transformers' text-generation pipeline.

    python -m benchmarks.expander_peer

The peer has random weights (they do not change its speed), prip-mini's vocabulary and greedy decoding, and adds exactly
as many tokens to each prompt as the embedded default adds to it: since the pipeline adds equally many to all prompts of
a batch, only such share one to which the embedded default adds equally many, too. Both take turns on the same machine,
and the ratio is the median of those of the turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from transformers import GPT2Config, GPT2LMHeadModel, pipeline
from transformers.utils import logging

from prip import Refiner
from prip.miniature.vocabulary import PLACES, SUBJECTS
from prip.options import RefineOptions

PROMPTS = [f"a {subject.name} {place.user_phrases[0]}" for subject in SUBJECTS for place in PLACES]


def added_tokens(refiner: Refiner, prompts: Sequence[str]) -> dict[str, int]:
    """Returns how many tokens of its decoder the refiner adds to each prompt, the end token included."""
    seeds = [(0, 0)] * len(prompts)
    actions = refiner.sampler.sample(prompts, seeds, RefineOptions(allow_faults=True))
    return {prompt: len(tokens) for prompt, tokens in zip(prompts, actions, strict=True)}


def even_batches(tokens: dict[str, int], size: int) -> list[list[str]]:
    """Returns batches of so many prompts, all of one with as many tokens, by how many these are."""
    groups: dict[int, list[str]] = {}
    for prompt, count in tokens.items():
        groups.setdefault(count, []).append(prompt)
    return [
        own[start : start + size] for _, own in sorted(groups.items()) for start in range(0, len(own) - size + 1, size)
    ]


def peer_of(refiner: Refiner) -> Callable[[Sequence[str], int], None]:
    """Returns the peer: it continues prompts by so many tokens, in one batch."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often both take their turn (default 5)")
    parser.add_argument("--batch", type=int, default=32, help="prompts in a batch (default 32, at most some 60)")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    refiner = Refiner.from_pretrained("prip-mini", device="cpu")
    expand = peer_of(refiner)
    tokens = added_tokens(refiner, PROMPTS)
    if not even_batches(tokens, arguments.batch):
        parser.error(f"--batch: no {arguments.batch} prompts get equally many tokens")
    print("| prompts at a time | tokens a prompt | PRIP, ms a prompt | peer, ms a prompt | ratio |\n|" + 5 * " --- |")
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
        del turns[0]  # it warms both up
        count = statistics.mean(made for made, _, _ in turns)
        own, other = (1000 * statistics.median(turn[place] for turn in turns) for place in (1, 2))
        ratio = statistics.median(peer / prip for _, prip, peer in turns)
        print(f"| {size} | {count:.1f} | {own:.1f} | {other:.1f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    main()
