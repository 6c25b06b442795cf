"""Check what `refine` guarantees on prompts outside its training: PartiPrompts, or any file of prompts.

    python -m benchmarks.parti_prompts PartiPrompts.tsv

Prints the share of refined prompts that keep the user's words verbatim, repeat no modifier, add no subject of the
miniature that the user did not name, and fit CLIP's 75 tokens.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable
from pathlib import Path

from prip import Refiner
from prip.errors import InputError
from prip.miniature.scene import mentioned_subjects
from prip.text.clip_tokens import count_clip_tokens
from prip.text.prompts import own_words

TOKEN_BUDGET = 75


def read_prompts(path: Path) -> list[str]:
    """Return the first column of a .tsv file with a header, or the lines of any other file."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".tsv":
            return [row[0] for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:] if row]
        return [line.rstrip("\n") for line in file if line.strip()]


def is_verbatim(user: str, refined: str) -> bool:
    """Whether the refined prompt starts with the user's own words."""
    return refined.startswith(own_words(user))


def repeats_nothing(user: str, refined: str) -> bool:
    """Whether no modifier occurs twice, or among the user's own."""
    own = [part.strip().lower() for part in own_words(user).split(",")]
    added = [part.strip().lower() for part in refined[len(own_words(user)) :].split(",") if part.strip()]
    return len(set(added)) == len(added) and not set(own) & set(added)


def names_no_other_subject(user: str, refined: str) -> bool:
    """Whether the additions name no subject that the user did not."""
    return mentioned_subjects(refined[len(own_words(user)) :]) <= mentioned_subjects(user)


def is_within_budget(user: str, refined: str) -> bool:
    """Whether the refined prompt fits, or was returned unchanged because there was no room."""
    return count_clip_tokens(refined) <= TOKEN_BUDGET or refined == user


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "the user's words verbatim": is_verbatim,
    "no repeated modifier": repeats_nothing,
    "no foreign subject noun": names_no_other_subject,
    "within the token budget": is_within_budget,
    "something was added": lambda user, refined: len(refined) > len(user),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Check refine on prompts outside its training.")
    parser.add_argument("file", type=Path, help="PartiPrompts.tsv, or a text file with one prompt per line")
    parser.add_argument("--model", default="prip-mini", help="checkpoint (default: prip-mini)")
    arguments = parser.parse_args()
    prompts = read_prompts(arguments.file)
    if not prompts:
        raise InputError(f"file: expected prompts, got none in {arguments.file}")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        refined = Refiner.from_pretrained(arguments.model).refine(prompts)
    for name, check in CHECKS.items():
        passed = [check(*pair) for pair in zip(prompts, refined, strict=True)]
        print(f"{name:28} {sum(passed):5} of {len(passed)}  {sum(passed) / len(passed):.2%}")
        for index in [index for index, is_passed in enumerate(passed) if not is_passed][:3]:
            print(f"    {prompts[index][:60]!r} -> {refined[index][-80:]!r}")


if __name__ == "__main__":
    main()
