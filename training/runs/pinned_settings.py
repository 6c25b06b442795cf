"""Settings in which what is on the Hub has its commit: as they are written into the run, they tell what it used."""

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

GENERATOR_PLACES = ("unet", "adapter", "upscaler")
"""Options of a generator that name a place"""


def pin_prepare(settings: PrepareSettings) -> PrepareSettings:
    """Returns the settings with the commits of generator, rewards, pivot encoder, DiffusionDB and evaluation files.

    Raises CheckpointError where the Hub does not tell one, as all of these functions do.
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
    """Returns the settings with the commits of generator, rewards and evaluation files."""
    files = tuple(map(pinned_file, settings.evaluation.files))
    evaluation = replace(settings.evaluation, files=files)
    return replace(settings, synthetic=_pinned_drawing(settings.synthetic), evaluation=evaluation)


def pin_encoder(settings: EncoderSettings) -> EncoderSettings:
    """Returns the settings with the commit of the base."""
    return replace(settings, base=_pinned(settings.base))


def pin_decoder(settings: DecoderSettings) -> DecoderSettings:
    """Returns the settings with the commit of the base."""
    return replace(settings, base=_pinned(settings.base))


def pin_rl(settings: RlSettings) -> RlSettings:
    """Returns the settings with the commits of generator and rewards."""
    return replace(settings, parts=_pinned_drawing(settings.parts))


def pin_tune(settings: TuneSettings) -> TuneSettings:
    """Returns the settings with the commits of generator and rewards."""
    return _pinned_drawing(settings)


def base_hash(base: str | None) -> dict[str, str]:
    """Returns what inputs.json says of a base: the hash of a folder, or the name on the Hub. The first process asks."""
    return {} if base is None or process_rank() else {"base": hash_of(base)}


def _pinned(place: str | None) -> str | None:
    return None if place is None else pinned(place)


def _pinned_drawing(settings: Drawing) -> Drawing:
    """Returns the settings with the commits of generator and rewards."""
    return replace(
        settings,
        generator=_pinned(settings.generator),
        generator_options=_pinned_options(settings.generator_options),
        rewards=tuple(map(pinned_reward, settings.rewards)),
    )


def _pinned_options(options: dict[str, object]) -> dict[str, object]:
    """Returns the options of a generator with the commits of the parts that it takes from elsewhere."""
    places = {name: place for name in GENERATOR_PLACES if isinstance(place := options.get(name), str)}
    return {**options, **{name: pinned(place) for name, place in places.items()}}
