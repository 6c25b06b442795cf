"""Refines for a host that cannot load PRIP itself: a request a line on standard input, a reply a line on the output.

A request is {"prompts", "seeds", "model", "options"}: one seed for each prompt, options of Refiner.refine but the seed.
A reply is {"refined", "added", "warnings"}, the first two with one entry for each prompt, or {"error"}. All is JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prip.errors import PripError, collected_warnings


def reply_to(line: str) -> dict[str, Any]:
    """Return the reply to a request; what PRIP complains of is part of it."""
    try:
        with collected_warnings() as notes:
            request = json.loads(line)
            refined = _refined(request["prompts"], request["seeds"], request["model"], request["options"])
            added = _added(request["prompts"], refined)
    except PripError as error:
        return {"error": str(error)}
    return {"refined": refined, "added": added, "warnings": notes}


def _refined(prompts: list[str], seeds: list[int], model: str, options: dict[str, Any]) -> list[str]:
    """Return the text of each prompt by its own seed; strength 0 loads no refiner."""
    from prip.options import RefineOptions
    from prip.processing import check_user_prompts

    chosen = RefineOptions(**options)
    if chosen.strength == 0:
        return check_user_prompts(prompts)
    from prip.refiner import loaded

    return loaded(model, "cpu")(prompts, seeds, chosen)


def _added(prompts: list[str], refined: list[str]) -> list[list[str]]:
    from prip.processing import modifiers_added

    return [modifiers_added(prompt, text) for prompt, text in zip(prompts, refined, strict=True)]


def main() -> None:
    """Answer until standard input ends; what libraries print goes to the error stream."""
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(reply_to(line)), file=replies, flush=True)


if __name__ == "__main__":
    main()
