"""Settings of the stand-ins for a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass

from prip.errors import InputError

from .shared import RunSettings, check_at_least


@dataclass(frozen=True, kw_only=True)
class StandInsSettings(RunSettings):
    """Write tiny random models in place of the paper's, and a small DiffusionDB, to rehearse the preset paper."""

    image_size: int = 64
    """Side of the images in pixels; a multiple of 16."""
    prompts: int = 24
    """Prompts in the DiffusionDB."""
    images_per_prompt: int = 3
    """Images per prompt in the DiffusionDB."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 8, "prompts")
        check_at_least(self, 2, "images_per_prompt")
        if self.image_size < 16 or self.image_size % 16:
            raise InputError(f"image_size: expected a multiple of 16, got {self.image_size}")
