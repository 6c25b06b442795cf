"""The model card of the miniature's checkpoint: what it is for, what it knows, what it was measured to do."""

from __future__ import annotations

from typing import Any

from prip.hub.model_card import card_header, evaluation_tables
from prip.miniature.vocabulary import ATTRIBUTES, NEUTRAL_MODIFIERS, PLACES, SUBJECTS

HEAD = """
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
    lines = [card_header("apache-2.0") + HEAD, "## What it knows", ""]
    lines.append(f"- {len(SUBJECTS)} subjects: {', '.join(subject.name for subject in SUBJECTS)}")
    lines.append(f"- {len(PLACES)} places: {', '.join(place.name for place in PLACES)}")
    for attribute, values in ATTRIBUTES.items():
        modifiers = ", ".join(modifier for value in values for modifier in value.modifiers)
        lines.append(f"- {attribute}: {modifiers}")
    lines.append(f"- without effect: {', '.join(NEUTRAL_MODIFIERS)}")
    lines += ["", "## How well its generator obeys", "", "| factor | share of drawings |", "| --- | --- |"]
    lines += [f"| {factor} | {share:.3f} |" for factor, share in obedience.items()]
    if evaluation is not None:
        lines += ["", "## What it was measured to do", "", evaluation_tables(evaluation).rstrip()]
    lines += ["", "How it was made, with settings, seeds and data hashes: `training.json`.", ""]
    return "\n".join(lines)
