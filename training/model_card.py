"""The model card of the miniature's checkpoint: what it is for, what it knows, what it was measured to do."""

from __future__ import annotations

from typing import Any

from prip.miniature.vocabulary import ATTRIBUTES, NEUTRAL_MODIFIERS, PLACES, SUBJECTS

HEAD = """---
license: apache-2.0
library_name: prip
tags: [prompt-refinement, text-to-image]
---

# prip-mini

A whole PRIP in miniature: preference encoder, prompt decoder, and the frozen parts that they were trained against, all
small and trained from scratch by `prip-train` in a world of its own. It is the embedded default of `prip.refine`.

## What it is for

Trying PRIP in the first minute, offline; developing and testing on a CPU; ablations in minutes. It adds modifiers that
image models of many kinds know ("golden hour", "sharp focus"), so it is of some use before a real one, but nobody has
measured that.

## What it is not for

Refining prompts for a real image model where the result matters: it has never seen a photograph, and its preferences
are those of a made-up world. It knows English alone. About subjects that it does not know it says what is liked on
average.
"""


def model_card(obedience: dict[str, float], evaluation: dict[str, Any] | None) -> str:
    """Returns the card in Markdown.

    obedience: share of drawings that follow their prompt, by factor. evaluation: what `prip evaluate` wrote, if it ran.
    """
    lines = [HEAD, "## What it knows", ""]
    lines.append(f"- {len(SUBJECTS)} subjects: {', '.join(subject.name for subject in SUBJECTS)}")
    lines.append(f"- {len(PLACES)} places: {', '.join(place.name for place in PLACES)}")
    for attribute, values in ATTRIBUTES.items():
        modifiers = ", ".join(modifier for value in values for modifier in value.modifiers)
        lines.append(f"- {attribute}: {modifiers}")
    lines.append(f"- without effect: {', '.join(NEUTRAL_MODIFIERS)}")
    lines += ["", "## How well its generator obeys", "", "| factor | share of drawings |", "| --- | --- |"]
    lines += [f"| {factor} | {share:.3f} |" for factor, share in obedience.items()]
    if evaluation is not None:
        lines += [
            "",
            "## What it was measured to do",
            "",
            "Test split; difference to the plain prompt, 95 % interval.",
            "",
        ]
        lines += [
            "| refiner | generator | judge | mean | difference | interval |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in evaluation["rows"]:
            interval = "" if row["refiner"] == "none" else f"{row['low']:+.3f} to {row['high']:+.3f}"
            cells = [row["refiner"], row["generator"], row["judge"], f"{row['mean']:.3f}", f"{row['difference']:+.3f}"]
            lines.append(f"| {' | '.join(cells)} | {interval} |")
        lines += ["", "Share of the gap from plain to best that is closed:", ""]
        for generator, (share, low, high) in evaluation["gap_closed"].items():
            interval = "no interval" if low is None else f"{low:.0%} to {high:.0%}"
            lines.append(f"- {generator}: " + ("best is no better" if share is None else f"{share:.0%} ({interval})"))
    lines += ["", "How it was made, with settings, seeds and data hashes: `training.json`.", ""]
    return "\n".join(lines)
