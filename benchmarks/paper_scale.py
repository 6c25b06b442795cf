"""What the paper's sizes cost on one GPU: encoder and decoder steps, a rollout of RL, and refine; random weights.

    python benchmarks/paper_scale.py                   # the paper's sizes, in bf16, on a GPU
    python benchmarks/paper_scale.py --size small      # the same code on small models, anywhere

FLOPs are counted by torch in a step of their own; MFU is their rate against the device's peak in bf16. The projected
hours are those of the paper's schedule at the measured rates, beside the paper's own on A100s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from paper_scale_parts import SIZES, Device
from paper_scale_steps import Cost, decoder_cost, encoder_cost, refine_cost, rollout_cost

PAPER_HOURS = {"encoder": 24, "decoder, all weights": 144, "rollout": 384}
"""A100-hours of the paper's three stages."""
PAPER_EXAMPLES = {"encoder": 300_000 * 3, "decoder, all weights": 900_000 * 2, "rollout": 1000 * 512}
"""Examples of the three stages: pairs, prompts and rollouts, times epochs."""
GOAL_SECONDS, PAPER_SECONDS = 0.15, 2.7
"""A rollout's time: the goal on an H200, and the paper's on an A100."""


def line(name: str, cost: Cost, device: Device) -> str:
    """A row of the table."""
    used = (
        "" if device.peak is None or cost.flops is None else f"{100 * cost.flops / cost.seconds / device.peak:6.1f} %"
    )
    return f"{name:22} {cost.examples:6} {cost.seconds:10.3f} {cost.rate:12.2f} {cost.peak_gib:10.1f} {used:>8}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="paper", help="of all models (default: paper)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU when there is one)")
    parser.add_argument("--repeats", type=int, default=5, help="steps timed of each kind (default: 5)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="some of the rows: encoder, lora, full, rollout, refine"
    )
    arguments = parser.parse_args()
    device, sizes = Device(arguments.device), SIZES[arguments.size]()
    if arguments.size == "paper" and not device.cuda:
        parser.error("--size paper wants a GPU, there is none: choose --size small")
    rows: dict[str, tuple[str, Callable[[], Cost]]] = {
        "encoder": ("encoder", lambda: encoder_cost(device, sizes, arguments.repeats)),
        "lora": ("decoder, LoRA", lambda: decoder_cost(device, sizes, 16, arguments.repeats)),
        "full": ("decoder, all weights", lambda: decoder_cost(device, sizes, 0, arguments.repeats)),
        "refine": ("refine", lambda: refine_cost(device, sizes, arguments.repeats)),
    }
    print(f"{device.name}, {arguments.size} sizes, {device.dtype}\n")
    print(f"{'':22} {'batch':>6} {'seconds':>10} {'examples/s':>12} {'peak GiB':>10} {'MFU':>8}")
    costs = {}
    for key, (name, measured) in rows.items():
        if not arguments.only or key in arguments.only:
            costs[name] = measured()
            print(line(name, costs[name], device), flush=True)
    if not arguments.only or "rollout" in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            cost, phases = rollout_cost(device, sizes, Path(folder))
        costs["rollout"] = cost
        print(line("rollout", cost, device))
        apart = ", ".join(f"{name} {1000 * seconds / cost.examples:.1f}" for name, seconds in phases.items())
        print(f"\na rollout, in ms: {apart}")
    if arguments.size == "paper":
        seconds = costs["rollout"].seconds / costs["rollout"].examples if "rollout" in costs else float("nan")
        print(f"a rollout: {seconds:.3f} s (goal on an H200: {GOAL_SECONDS}; the paper, on an A100: {PAPER_SECONDS})")
        print("\nthe paper's schedule, in hours of this GPU (of an A100, by the paper):")
        for name in filter(costs.__contains__, PAPER_HOURS):
            print(f"  {name:22} {PAPER_EXAMPLES[name] / costs[name].rate / 3600:8.1f} ({PAPER_HOURS[name]})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
