"""Settings of the rehearsal's stand-ins."""

from __future__ import annotations

from dataclasses import dataclass

from prip.errors import InputError

from .shared import RunSettings, check_at_least


@dataclass(frozen=True, kw_only=True)
class StandInsSettings(RunSettings):
    """Write small models with random weights in the paper's places, and a small DiffusionDB, to rehearse a preset."""

    image_size: int = 64
    """Side of the generator's images in pixels."""

    prompts: int = 24
    """Prompts in the DiffusionDB."""

    images_per_prompt: int = 3
    """Images of each prompt in the DiffusionDB."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 8, "prompts")
        check_at_least(self, 2, "images_per_prompt")
        if self.image_size < 16 or self.image_size % 16:
            raise InputError(f"image_size: expected a multiple of 16, got {self.image_size}")
