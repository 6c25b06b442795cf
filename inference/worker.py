"""Refines for a host that cannot load PRIP itself: JSON lines, with requests on stdin and replies on stdout.

A request is {"prompts", "seeds", "model", "options"}, with one seed per prompt and RefineOptions without the seed.
It may have "negative_prompts", one per prompt, which the reply then extends. A reply is {"refined", "added",
"warnings"}, the first two with one entry per prompt, or {"error"}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prip.control.negative import negative_prompt
from prip.errors import PripError, collected_warnings
from prip.options import RefineOptions
from prip.text.prompts import check_user_prompts, modifiers_added


def reply_to(line: str) -> dict[str, Any]:
    """Return the reply to a request; errors and warnings of PRIP are part of it."""
    try:
        with collected_warnings() as notes:
            request = json.loads(line)
            refined = _refined(request["prompts"], request["seeds"], request["model"], request["options"])
            reply = {
                "refined": refined,
                "added": [modifiers_added(*pair) for pair in zip(request["prompts"], refined, strict=True)],
                "warnings": notes,
            }
            if (own := request.get("negative_prompts")) is not None:
                reply["negative_prompts"] = [negative_prompt(*pair) for pair in zip(refined, own, strict=True)]
    except PripError as error:
        return {"error": str(error)}
    return reply


def _refined(prompts: list[str], seeds: list[int], model: str, options: dict[str, Any]) -> list[str]:
    """Return the refined prompt for each user prompt and seed; strength 0 loads no refiner."""
    chosen = RefineOptions(**options)
    if chosen.strength == 0:
        return check_user_prompts(prompts)
    from prip.refiner import loaded

    return loaded(model, "cpu")(prompts, seeds, chosen)


def main() -> None:
    """Answer requests until standard input ends; what libraries print goes to standard error."""
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(reply_to(line)), file=replies, flush=True)


if __name__ == "__main__":
    main()
