"""Count refined prompts with a modifier that a ban or the token budget truncated, with `whole_modifiers` or not.

    python -m benchmarks.whole_modifiers

Uses prip-mini, all of whose modifiers the miniature knows. Bans each word of more than three letters that is not the
first of a modifier, one at a time; then tries small token budgets.
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
"""In CLIP's tokens, including the user prompt's."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the modifiers that bans and budgets truncate.")
    parser.add_argument("--prompts-per-combination", type=int, default=2, help="test prompts (default: 2, 154 in all)")
    arguments = parser.parse_args()
    refiner = Refiner.from_pretrained("prip-mini")
    prompts = [prompt for prompt, _ in user_prompts("test", arguments.prompts_per_combination, 0)]
    words = sorted({word for modifier in KNOWN for word in modifier.split()[1:] if len(word) > 3})

    def modifiers(whole: bool, budget: int, banned: Sequence[str]) -> list[list[str]]:
        """Return the modifiers added to each prompt that gained some."""
        options = RefineOptions(token_budget=budget, banned_terms=banned, allow_faults=True)
        seeds = [(0, 0)] * len(prompts)
        sampler, found = refiner.sampler, refiner.sampler.sample(prompts, seeds, options, whole_modifiers=whole)
        texts = [(user, sampler.text(user, actions)) for user, actions in zip(prompts, found, strict=True) if actions]
        return [modifiers_added(user, text) for user, text in texts]

    print(f"{len(prompts)} prompts; spoiled: share of texts with a truncated modifier")
    print("case                 modifiers are    spoiled  modifiers  such as")
    cases = [(f"each of {len(words)} words banned", 75, [[word] for word in words])]
    cases += [(f"budget of {budget}", budget, [[]]) for budget in BUDGETS]
    for case, budget, bans in cases:
        for whole in (True, False):
            texts = [added for banned in bans for added in modifiers(whole, budget, banned)]
            unknown = [[modifier for modifier in added if modifier not in KNOWN] for added in texts]
            common = Counter(modifier for added in unknown for modifier in added).most_common(3)
            print(
                f"{case:20} {'dropped whole' if whole else 'by masks alone':16} {mean(map(bool, unknown)):7.3f} "
                f"{mean(map(len, texts)):10.2f}  {', '.join(modifier for modifier, _ in common)}"
            )


if __name__ == "__main__":
    main()
