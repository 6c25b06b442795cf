"""Measure alternatives: how much they share, whether they are clean, and the reward of their images.

    python -m benchmarks.alternatives

Compares nucleus sizes (`top_p`), with faults allowed or not, for prip-mini. `prip.refine` uses the last row's.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from itertools import combinations
from statistics import mean

from prip import Refiner
from prip.generators import load_generator
from prip.inference.checkpoint_parts import Parts
from prip.miniature.prompts import user_prompts
from prip.miniature.vocabulary import ATTRIBUTES, MODIFIERS, NEUTRAL_MODIFIERS, POOR
from prip.rewards import load_reward
from prip.text.prompts import modifiers_added

KNOWN = {*MODIFIERS, *NEUTRAL_MODIFIERS}
HARMFUL = {modifier for values in ATTRIBUTES.values() for modifier in values[POOR].modifiers}

VARIANTS = [(1.0, True), (0.95, True), (0.9, True), (0.8, True), (0.7, True), (0.9, False)]
"""top_p, and whether faults are allowed."""


def shared(sets: Sequence[set[str]]) -> float:
    """Return the mean Jaccard index of the modifiers of two alternatives."""
    return mean(len(one & other) / max(1, len(one | other)) for one, other in combinations(sets, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare ways to sample alternatives.")
    parser.add_argument("--prompts", type=int, default=40, help="test prompts (default: 40)")
    parser.add_argument("--alternatives", type=int, default=4, help="texts per prompt (default: 4)")
    parser.add_argument("--images-per-prompt", type=int, default=2, help="images per text (default: 2)")
    parser.add_argument("--generator", default="renderer", choices=["renderer", "diffusion"])
    parser.add_argument("--reward", default="mini-hps", help="one of prip-mini's rewards (default: mini-hps)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    parts = Parts.of_checkpoint("prip-mini")
    generator = load_generator("renderer" if arguments.generator == "renderer" else str(parts.generator))
    reward = load_reward(parts.rewards / arguments.reward)
    refiner = Refiner.from_pretrained("prip-mini")
    rows = user_prompts("test", 1, 0)
    prompts = [prompt for prompt, _ in rows[:: max(1, len(rows) // arguments.prompts)]][: arguments.prompts]

    def quality(pairs: Sequence[tuple[str, str]]) -> float:
        """Return the mean reward of the images of (user prompt, text) pairs."""
        jobs = [(user, text, seed) for user, text in pairs for seed in range(arguments.images_per_prompt)]
        images = generator([text for _, text, _ in jobs], [seed for *_, seed in jobs])
        return float(reward([user for user, *_ in jobs], images).mean())

    print(f"plain {quality([(prompt, prompt) for prompt in prompts]):.3f}")
    print(f"first {quality(list(zip(prompts, refiner.refine(prompts), strict=True))):.3f} (greedy, the same for all)")
    print("top_p  faults   texts  shared  unclean  harmful  reward of the others")
    for top_p, allow_faults in VARIANTS:
        options = {"num_alternatives": arguments.alternatives, "top_p": top_p, "allow_faults": allow_faults}
        texts = refiner.refine(prompts, **options)
        added = [[set(modifiers_added(user, text)) for text in each] for user, each in zip(prompts, texts, strict=True)]
        others = [modifiers for each in added for modifiers in each[1:]]
        pairs = [(user, text) for user, each in zip(prompts, texts, strict=True) for text in each[1:]]
        print(
            f"{top_p:5} {'allowed' if allow_faults else 'none':8} {mean(map(len, texts)):5.2f} "
            f"{mean(map(shared, added)):7.3f} "
            f"{mean(not each <= KNOWN for each in others):8.3f} {mean(bool(each & HARMFUL) for each in others):8.3f} "
            f"{quality(pairs):8.3f}"
        )


if __name__ == "__main__":
    main()
