"""Where a DiffusionDB is: a folder here, or a dataset on the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prip.errors import InputError
from prip.hub.commits import pinned
from prip.hub.names import is_on_hub

from .diffusiondb import local_metadata
from .hub_parts import fetch_metadata, hub_parts
from .parts import Part, local_parts, part_number


@dataclass(frozen=True)
class Source:
    """Parts, and the tables of metadata that tell about them."""

    parts: Sequence[Part]
    metadata: Sequence[Path]


def find_source(
    place: str | Path,
    subset: Literal["2m", "large"] = "2m",
    first_part: int = 1,
    part_limit: int = 0,
    keep: bool = False,
) -> Source:
    """Returns the parts at `place` from number `first_part` on, part_limit of them at most (0 for all).

    subset, keep: which set on the Hub is meant, and whether its zips stay in the Hub's cache.
    Raises InputError where there is no part, CheckpointError if the Hub does not give what is asked for.
    """
    if is_on_hub(place):
        commit = pinned(str(place), "dataset")
        parts, metadata = hub_parts(commit, subset, keep), [fetch_metadata(commit, subset)]
    else:
        parts, metadata = local_parts(Path(place)), local_metadata(Path(place))
    chosen = [part for part in parts if part_number(part.name) >= first_part][: part_limit or None]
    if not chosen:
        wanted = f"parts such as part-000001 or part-000001.zip, from number {first_part} on"
        raise InputError(f"diffusiondb: expected a folder with {wanted}, got {place}")
    return Source(chosen, metadata)
