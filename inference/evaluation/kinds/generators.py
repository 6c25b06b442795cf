"""Generators by their place: the checkpoint's own, the one that tuning made of it, or any diffusers pipeline."""

from __future__ import annotations

from typing import Any

from prip.errors import InputError, require
from prip.fingerprints import fingerprint
from prip.protocols import Generator

from ...checkpoint_parts import existing
from .registry import Context

STAGES = ("world", "tune")


def make_diffusers(
    name: str,
    context: Context,
    *,
    place: str | None = None,
    stage: str = "world",
    options: dict[str, Any] | None = None,
) -> Generator:
    """The kind `diffusers`. place: a text-to-image pipeline by folder or Hub id; None is that of the checkpoint or run
    that is measured. stage: of a run, its generator as it is (world) or after prip-train tune. options: what
    `DiffusersGenerator.from_pretrained` takes besides: steps, guidance, scheduler, unet, dtype, batch_size."""
    from prip.generators import load_generator

    require("diffusers", "evaluate")
    if place is None:
        place = _own_place(name, context, stage)
    elif stage != STAGES[0]:
        raise InputError(f"generator {name!r}: stage is of the run that is measured, place names another generator")
    return load_generator(place, device=context.device, **(options or {}))


def _own_place(name: str, context: Context, stage: str) -> str:
    """Returns the folder of the measured generator. Raises InputError for a stage that it does not have."""
    if stage not in STAGES:
        raise InputError(f"generator {name!r}: stage must be one of {', '.join(STAGES)}, it is {stage!r}")
    if stage == "world":
        return str(existing(context.parts.generator))
    if context.parts.tuned_generator is None:
        raise InputError(f"generator {name!r}: stage tune is that of a --run, a checkpoint has no tuned generator")
    return str(existing(context.parts.tuned_generator))


def identity(generator: Generator) -> str:
    """Returns what tells a generator from every other one: its class, its sampling and all its weights."""
    about = [type(generator).__name__, generator.name, getattr(generator, "sampling", ""), fingerprint(generator)]
    return " ".join([*about, str(getattr(generator, "size", ""))])
