"""Speed beside the usual prompt expander: a GPT-2 of 124M parameters behind transformers' text-generation pipeline.

    python benchmarks/expander_peer.py

The peer has random weights (they do not change its speed), prip-mini's vocabulary and greedy decoding, and adds exactly
as many tokens to each prompt as the embedded default adds to it. Both take turns on the same machine.
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

PROMPTS = [f"a {subject.name} {place.user_phrases[0]}" for subject in SUBJECTS for place in PLACES]


def added_tokens(refiner: Refiner, prompts: Sequence[str]) -> dict[str, int]:
    """Returns how many tokens of its decoder the refiner adds to each prompt, the end token included."""
    seeds = [(0, 0)] * len(prompts)
    actions = refiner.actions(prompts, seeds, 0.0, 60, refiner.token_limit)
    return {prompt: len(tokens) for prompt, tokens in zip(prompts, actions, strict=True)}


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
    parser.add_argument("--batch", type=int, default=32, help="prompts in a batch (default 32)")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    refiner = Refiner.from_pretrained("prip-mini", device="cpu")
    expand = peer_of(refiner)
    tokens = added_tokens(refiner, PROMPTS)
    print("| prompts at a time | PRIP, ms a prompt | peer, ms a prompt | ratio |\n| --- | --- | --- | --- |")
    for size in (1, arguments.batch):
        times: dict[str, list[float]] = {"prip": [], "peer": []}
        for turn in range(arguments.rounds + 1):  # the first turn warms both up
            prompts = [PROMPTS[(turn * size + place) % len(PROMPTS)] for place in range(size)]
            longest = max(tokens[prompt] for prompt in prompts)
            began = time.perf_counter()
            refiner.refine(prompts)
            between = time.perf_counter()
            expand(prompts, longest)
            times["prip"].append((between - began) / size)
            times["peer"].append((time.perf_counter() - between) / size)
        own, other = (1000 * statistics.median(found[1:]) for found in times.values())
        print(f"| {size} | {own:.1f} | {other:.1f} | {other / own:.1f} |", flush=True)


if __name__ == "__main__":
    main()
