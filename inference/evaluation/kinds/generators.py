"""Generators: the checkpoint's own, its tuned version, or any diffusers pipeline."""

from __future__ import annotations

from typing import Any, Literal

from prip.errors import InputError, require
from prip.fingerprints import fingerprint
from prip.protocols import Generator

from ...checkpoint_parts import existing
from .registry import Context


def make_diffusers(
    name: str,
    context: Context,
    *,
    place: str | None = None,
    stage: Literal["world", "tune"] = "world",
    options: dict[str, Any] | None = None,
) -> Generator:
    """The kind `diffusers`: a text-to-image pipeline.

    Args:
        place: A pipeline by folder or Hub id; None is that of the checkpoint or run.
        stage: Of a run, its generator before (world) or after `prip-train tune`.
        options: Further arguments of `DiffusersGenerator.from_pretrained`: steps, guidance, scheduler, unet, dtype,
            batch_size.

    Raises:
        InputError: `stage` is set for a pipeline or checkpoint that has only one.
    """
    from prip.generators import load_generator

    require("diffusers", "evaluate")
    if place is not None and stage != "world":
        raise InputError(f"stage: expected none with place, got {stage!r}")
    if place is None:
        own = context.parts.generator if stage == "world" else context.parts.tuned_generator
        if own is None:
            raise InputError("stage: expected world, as only a --run has a tuned generator, got 'tune'")
        place = str(existing(own))
    return load_generator(place, device=context.device, **(options or {}))


def identity(generator: Generator) -> str:
    """Return what distinguishes a generator from every other one: class, sampling, weights and image size."""
    about = [type(generator).__name__, generator.name, getattr(generator, "sampling", ""), fingerprint(generator)]
    return " ".join([*about, str(getattr(generator, "size", ""))])
