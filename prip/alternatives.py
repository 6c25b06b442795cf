"""Distinct texts for one prompt: sampling is tried again, each time hotter, for those that came out equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

ROUNDS = 12
"""How often is tried."""

Draw = Callable[[Sequence[tuple[str, int]], float], Sequence[str | None]]
"""Makes a text at a temperature for each (user prompt, number of the alternative); None where there is no room."""


def find_alternatives(
    firsts: Mapping[str, str], wanted: int, temperature: float, draw: Draw
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the distinct texts of each prompt, its first one leading, and the prompts that have fewer than `wanted`.

    firsts: a text of each user prompt. temperature: of the first round; 0 is 1. What a prompt gets does not depend on
    the others.
    """
    found = {prompt: [text] for prompt, text in firsts.items()}
    missing = dict.fromkeys(firsts, wanted - 1)
    tried = dict.fromkeys(firsts, 0)
    hotter = temperature or 1.0
    for _ in range(ROUNDS):
        jobs = [(prompt, tried[prompt] + i + 1) for prompt, count in missing.items() for i in range(count)]
        if not jobs:
            break
        for (prompt, alternative), text in zip(jobs, draw(jobs, hotter), strict=True):
            tried[prompt] = alternative
            if text is not None and text not in found[prompt]:
                found[prompt].append(text)
                missing[prompt] -= 1
        hotter = max(1.5 * hotter, 0.5)
    return found, [prompt for prompt, count in missing.items() if count > 0]
