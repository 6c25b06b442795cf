"""Measure the speed of prip-mini: one prompt warm, a batch of 256, and a cold process against `import torch`.

    python -m benchmarks.refine_speed

A third process imports torch and the checkpoint's transformers classes, which is the part that is not PRIP's own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

TORCH = [sys.executable, "-c", "import torch"]
CLASSES = [sys.executable, "-c", "import torch; from transformers import LlamaForCausalLM, T5Model"]
COLD = [str(Path(sys.executable).with_name("prip")), "refine", "a cat"]


def warm(repeats: int) -> float:
    """Return the median milliseconds of one prompt, over distinct prompts."""
    from prip import Refiner

    refiner = Refiner.from_pretrained("prip-mini")
    for number in range(5):
        refiner.refine(f"warming up number {number}")
    times = []
    for number in range(repeats):
        began = time.perf_counter()
        refiner.refine(f"a cat and {number} dogs on a beach")
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def batch(size: int, repeats: int, suffix: str = "") -> float:
    """Return prompts per second in batches of `size`, the best of `repeats`; `suffix` is added to each prompt."""
    from prip import Refiner

    refiner = Refiner.from_pretrained("prip-mini")
    rates = []
    for repeat in range(repeats + 1):
        prompts = [f"a cat and {repeat} dogs on beach number {number}{suffix}" for number in range(size)]
        began = time.perf_counter()
        refiner.refine(prompts)
        rates.append(size / (time.perf_counter() - began))
    return max(rates[1:])


def cold(repeats: int) -> list[float]:
    """Return the median seconds of COLD, CLASSES and TORCH, run in turns."""
    seconds: list[list[float]] = []
    for _ in range(repeats):
        seconds.append([])
        for command in (COLD, CLASSES, TORCH):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[-1].append(time.perf_counter() - began)
    return [statistics.median(times) for times in zip(*seconds, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of prip-mini.")
    parser.add_argument("--repeats", type=int, default=50, help="prompts timed one by one (default: 50)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default: 2)")
    arguments = parser.parse_args()
    refine, classes, only_torch = cold(7)
    import torch

    torch.set_num_threads(arguments.threads)
    print(f"one prompt, warm       {warm(arguments.repeats):8.1f} ms (median of {arguments.repeats})")
    print(f"batch of 256           {batch(256, 3):8.1f} prompts/s")
    print(f"which name attributes  {batch(256, 3, ', watercolor'):8.1f} prompts/s, kept")
    print(
        f"cold process           {refine / only_torch:8.2f} times `import torch` ({refine:.2f} s, {only_torch:.2f} s)"
    )
    print(f"transformers' classes  {classes / only_torch:8.2f} times `import torch` ({classes:.2f} s)")


if __name__ == "__main__":
    main()
