"""A second stage that enlarges what the first one drew: DeepFloyd-IF's, from 64 to 256 pixels a side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .families import native_size
from .pipelines import default_guidance

BASE = "IFPipeline"
"""The class of the first stage."""

STREAMS = ("upscaler latents", "upscaler steps")
"""Of an image's random numbers, beside those of the first stage; the noise on the small image is of the later ones."""


@dataclass(frozen=True)
class Upscaler:
    """The second stage. It has no text encoder: it reads the first one's embeddings."""

    pipeline: Any
    """An IFSuperResolutionPipeline."""
    name: str = "upscaler"
    """What it was loaded from."""

    @property
    def guidance(self) -> float:
        """The stage's own default."""
        return default_guidance(self.pipeline)

    def factor(self, base: Any) -> int:
        """Returns how often a side of the first stage's image is multiplied.

        Raises InputError where `base` is no first stage of DeepFloyd-IF, or its size does not divide this one's.
        """
        if BASE not in [kind.__name__ for kind in type(base).__mro__]:
            raise InputError(f"upscaler: it enlarges what an {BASE} draws, the generator is a {type(base).__name__}")
        own, small = native_size(self.pipeline)[0], native_size(base)[0]
        if own % small:
            raise InputError(f"upscaler: wanted a size that {small}, the first stage's, divides; {own} came")
        return own // small

    def small_size(self, base: Any, sizes: dict[str, int]) -> dict[str, int]:
        """Returns the height and the width of the first stage for those of the second, where they are given."""
        factor = self.factor(base)
        for side, size in sizes.items():
            if size % factor:
                raise InputError(f"{side}: wanted a multiple of {factor}, by which the upscaler enlarges; {size} came")
        return {side: size // factor for side, size in sizes.items()}
