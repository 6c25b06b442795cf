"""Generators by their place: the checkpoint's own, or any diffusers pipeline."""

from __future__ import annotations

from typing import Any

from prip.errors import require
from prip.frozen import fingerprint
from prip.protocols import Generator

from ..parts import existing
from .kinds import Context


def make_diffusers(
    name: str, context: Context, *, place: str | None = None, options: dict[str, Any] | None = None
) -> Generator:
    """The kind `diffusers`. place: a text-to-image pipeline by folder or Hub id; None is the checkpoint's own. options:
    what `DiffusersGenerator.from_pretrained` takes besides: steps, guidance, scheduler, unet, dtype, batch_size."""
    from prip.generators import load_generator

    require("diffusers", "evaluate")
    place = str(existing(context.parts.generator)) if place is None else place
    return load_generator(place, device=context.device, **(options or {}))


def identity(generator: Generator) -> str:
    """Returns what tells a generator from every other one: its class, its sampling and all its weights."""
    about = [type(generator).__name__, generator.name, getattr(generator, "sampling", ""), fingerprint(generator)]
    return " ".join([*about, str(getattr(generator, "size", ""))])
