"""What the masks of sampled actions cost in reinforcement learning: kept from sampling, or made again from the actions.

    OMP_NUM_THREADS=2 python -m benchmarks.mask_replay

Texts are sampled from random logits up to the token budget. Kept masks are packed at each step; before, they were made
again for the updates, and near the token budget of a large vocabulary these allowed fewer tokens than sampling had.
The ratio is the seconds of making masks again over those of keeping them.
"""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.common import make_parser, table_head, table_row
from benchmarks.sampling_speed import OPTIONS, PROMPTS, NoDecoder, RandomStream
from prip.decoding import decode as decoding
from prip.decoding.constraints import Constraints
from prip.decoding.mask_bits import pack_bits, unpack_bits
from prip.decoding.sampling import row_generator
from prip.training.real_vocabulary import real_vocabulary

HEAD = table_head(["vocabulary", "actions", "kept", "made again", "ratio", "actions with a narrower mask"])


def sample(
    constraints: Constraints, prompts: list[str], size: int
) -> tuple[list[list[int]], list[list[Tensor]], float]:
    """Return the actions of random logits, their masks, and the seconds of packing these."""
    seconds = 0.0

    class Stream(RandomStream):
        width = size

    def timed(mask: Tensor) -> Tensor:
        nonlocal seconds
        began = time.perf_counter()
        packed = pack_bits(mask)
        seconds += time.perf_counter() - began
        return packed

    decoder: Any = NoDecoder().manual_seed(0)
    rows = constraints.begin(prompts, OPTIONS)
    with patch.object(decoding, "_Stream", Stream), patch.object(decoding, "pack_bits", timed):
        actions = decoding.decode(
            decoder,
            constraints,
            pivot=None,
            prefix_ids=[[1]] * len(prompts),
            rows=rows,
            options=OPTIONS,
            generators=[row_generator(0, prompt, number) for number, prompt in enumerate(prompts)],
            whole_modifiers=False,
        )
    return actions, [row.masks for row in rows], seconds


def measure(size: int, rows: int) -> str:
    """Return the table row of a vocabulary."""
    constraints = Constraints(real_vocabulary(size), vocabulary_size=size)
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    actions, masks, packing = sample(constraints, prompts, size)
    began = time.perf_counter()
    kept = [torch.stack(steps) for steps in masks]
    keeping = packing + time.perf_counter() - began
    narrower, replaying = 0, 0.0
    for prompt, tokens, packed in zip(prompts, actions, kept, strict=True):
        began = time.perf_counter()
        again = pack_bits(constraints.replay([prompt], [tokens], OPTIONS))[0]
        replaying += time.perf_counter() - began
        narrower += int((unpack_bits(packed, size) & ~unpack_bits(again, size)).any(dim=1).sum())
    count = sum(map(len, actions))
    return table_row(
        [
            f"{size:,}",
            f"{count:,}",
            f"{keeping:.2f} s",
            f"{replaying:.2f} s",
            f"{replaying / keeping:.0f}",
            f"{narrower / count:.1%}",
        ]
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 152_000], help="entries of each")
    parser.add_argument("--rows", type=int, default=64, help="texts to sample (default: 64)")
    arguments = parser.parse_args()
    print(HEAD)
    for size in arguments.vocabularies:
        print(measure(size, arguments.rows), flush=True)


if __name__ == "__main__":
    main()
