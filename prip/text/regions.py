"""Regions of a prompt: parts that the webui and its regional prompters read apart, each in a chunk of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SEPARATOR = re.compile(r"([\s,.]*\b(?:BREAK|ADDCOL|ADDROW|ADDCOMM|ADDBASE)\b[\s,]*)")


def split_regions(prompt: str) -> tuple[list[str], list[str]]:
    """Return the regions of a prompt, and the separators between them with the blanks and commas around them."""
    parts = _SEPARATOR.split(prompt)
    return parts[::2], parts[1::2]


def join_regions(regions: Sequence[str], separators: Sequence[str]) -> str:
    """Return the prompt of regions and the separators between them."""
    parts = [part for pair in zip(regions, separators, strict=False) for part in pair]
    return "".join([*parts, regions[-1]])
