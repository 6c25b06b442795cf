"""Settings whose Hub references are pinned to commits, so that settings.yaml records exactly what a run used."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from prip.files import hash_of
from prip.hub.commits import pinned
from prip.hub.names import is_on_hub
from prip.rewards import pinned_reward

from ..data.evaluation_sets import pinned_file
from ..settings import (
    DecoderSettings,
    DrawingSettings,
    EncoderSettings,
    PrepareSettings,
    RewritesSettings,
    RlSettings,
    TuneSettings,
)
from .processes import process_rank

Drawing = TypeVar("Drawing", bound=DrawingSettings)
Based = TypeVar("Based", EncoderSettings, DecoderSettings)
GENERATOR_REFERENCES = ("unet", "adapter", "upscaler")
"""Options of a generator that name a folder or a repository on the Hub"""


def pin_prepare(settings: PrepareSettings) -> PrepareSettings:
    """Pin generator, rewards, pivot encoder, DiffusionDB and evaluation files.

    Raises:
        CheckpointError: The Hub has no such commit; the other functions here raise it too.
    """
    files = tuple(map(pinned_file, settings.evaluation.files))
    database = settings.diffusiondb
    return replace(
        _pinned_drawing(settings),
        diffusiondb=pinned(str(database), "dataset") if database and is_on_hub(database) else database,
        pivot_encoder=_pinned(settings.pivot_encoder),
        evaluation=replace(settings.evaluation, files=files),
    )


def pin_rewrites(settings: RewritesSettings) -> RewritesSettings:
    """Pin generator, rewards and evaluation files."""
    files = tuple(map(pinned_file, settings.evaluation.files))
    evaluation = replace(settings.evaluation, files=files)
    return replace(settings, gain=_pinned_drawing(settings.gain), evaluation=evaluation)


def pin_base(settings: Based) -> Based:
    """Pin the base model."""
    return replace(settings, base=_pinned(settings.base))


def pin_rl(settings: RlSettings) -> RlSettings:
    """Pin generator and rewards."""
    return replace(settings, parts=_pinned_drawing(settings.parts))


def pin_tune(settings: TuneSettings) -> TuneSettings:
    """Pin generator and rewards."""
    return _pinned_drawing(settings)


def base_hash(base: str | None) -> dict[str, str]:
    """Return the entry of inputs.json for a base model: hash or pinned name; in the first process only."""
    return {} if base is None or process_rank() else {"base": hash_of(base)}


def _pinned(reference: str | None) -> str | None:
    return None if reference is None else pinned(reference)


def _pinned_drawing(settings: Drawing) -> Drawing:
    options = settings.generator_options
    references = {name: value for name in GENERATOR_REFERENCES if isinstance(value := options.get(name), str)}
    return replace(
        settings,
        generator=_pinned(settings.generator),
        generator_options={**options, **{name: pinned(value) for name, value in references.items()}},
        rewards=tuple(map(pinned_reward, settings.rewards)),
    )
