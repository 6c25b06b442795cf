"""How many refined prompts hold a modifier that a ban or the budget has spoiled: dropped whole, or by the masks alone.

    python -m benchmarks.whole_modifiers

For prip-mini, whose every modifier is one that the miniature knows. Bans each word of more than three letters that
stands behind the first in one of these, one after another; then leaves few tokens.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from statistics import mean

from benchmarks.alternatives import KNOWN
from prip import Refiner
from prip.miniature.prompts import user_prompts
from prip.options import RefineOptions
from prip.text.prompts import modifiers_added

BUDGETS = [10, 12, 16, 20, 75]
"""In CLIP's tokens, the user prompt's included."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the modifiers that bans and budgets spoil.")
    parser.add_argument("--prompts-per-combination", type=int, default=2, help="test prompts (default: 2, 154 in all)")
    arguments = parser.parse_args()
    refiner = Refiner.from_pretrained("prip-mini")
    prompts = [prompt for prompt, _ in user_prompts("test", arguments.prompts_per_combination, 0)]
    words = sorted({word for modifier in KNOWN for word in modifier.split()[1:] if len(word) > 3})

    def modifiers(whole: bool, budget: int, banned: Sequence[str]) -> list[list[str]]:
        """Those of each prompt that gained some."""
        options = RefineOptions(token_budget=budget, banned_terms=banned, allow_faults=True)
        seeds = [(0, 0)] * len(prompts)
        sampler, found = refiner.sampler, refiner.sampler.sample(prompts, seeds, options, whole_modifiers=whole)
        texts = [(user, sampler.text(user, actions)) for user, actions in zip(prompts, found, strict=True) if actions]
        return [modifiers_added(user, text) for user, text in texts]

    print(f"{len(prompts)} prompts; spoiled: share of texts with a modifier that the miniature does not know")
    print("case                 modifiers are    spoiled  modifiers  such as")
    cases = [(f"each of {len(words)} words banned", 75, [[word] for word in words])]
    cases += [(f"budget of {budget}", budget, [[]]) for budget in BUDGETS]
    for case, budget, bans in cases:
        for whole in (True, False):
            texts = [own for banned in bans for own in modifiers(whole, budget, banned)]
            unknown = [[modifier for modifier in own if modifier not in KNOWN] for own in texts]
            common = Counter(modifier for own in unknown for modifier in own).most_common(3)
            print(
                f"{case:20} {'dropped whole' if whole else 'by masks alone':16} {mean(map(bool, unknown)):7.3f} "
                f"{mean(map(len, texts)):10.2f}  {', '.join(modifier for modifier, _ in common)}"
            )


if __name__ == "__main__":
    main()
