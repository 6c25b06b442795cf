"""Settings of the stage that makes the data of the warm-ups."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError

from .shared import RunSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class SystemPromptSettings:
    """Which system prompts the decoder learns from: those whose own image scores well."""

    keep_share: float = 0.5
    """Share of the system prompts that is kept: those whose image has the highest standardised sum of rewards."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """Reward name to the raw score that the image must exceed as well, for each reward named."""

    scored_for: Literal["prompt", "start"] = "prompt"
    """What the image is scored for: its whole prompt, or what stands before the first comma there (what a user might
    have typed, for rewards that know user prompts only)."""

    def __post_init__(self) -> None:
        check_fraction(self, "keep_share")
        if not self.keep_share > 0:
            raise InputError("keep_share: wanted more than 0, got 0")


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(RunSettings):
    """Draw images, choose the preferred ones and the system prompts, cache their pivots."""

    diffusiondb: Path | None = None
    """Folder in DiffusionDB's layout to mine; null draws one at RUN/data/diffusiondb."""

    user_prompts: Path | None = None
    """Table of user prompts to draw (user_prompt, split); null means RUN/parts/prompts/user_prompts.parquet."""

    system_prompts: Path | None = None
    """Table of system prompts to draw (system_prompt, split); null means RUN/parts/prompts/system_prompts.parquet."""

    generator: str | None = None
    """Generator by folder or Hub id; null means RUN/parts/generator."""

    pivot_encoder: str | None = None
    """Pivot encoder by folder or Hub id; null means RUN/parts/pivot_encoder."""

    rewards: tuple[str, ...] = ()
    """Rewards by folder or Hub id; empty means every folder in RUN/parts/rewards."""

    images_per_user_prompt: int = 8
    """Images drawn for each user prompt, among which the preferred one is chosen."""

    preferred_per_prompt: int = 1
    """How many of a user prompt's best images become a row of their own."""

    system: SystemPromptSettings = field(default_factory=SystemPromptSettings)
    """Which system prompts are kept."""

    user_prompt_limit: int = 0
    """At most so many user prompts are drawn, chosen at random; 0 draws all."""

    system_prompt_limit: int = 0
    """At most so many system prompts are drawn, chosen at random; 0 draws all."""

    dev_share: float = 0.05
    """Share of the prompts of `diffusiondb` that becomes the dev split; tables of prompts hold splits of their own."""

    max_bad_share: float = 0.01
    """The stage fails where a larger share of the images is missing, broken or without a prompt."""

    batch_size: int = 64
    """Images that are drawn, scored or encoded at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 2, "images_per_user_prompt")
        check_at_least(self, 1, "preferred_per_prompt", "batch_size")
        check_at_least(self, 0, "user_prompt_limit", "system_prompt_limit")
        check_fraction(self, "dev_share", "max_bad_share")
        if self.preferred_per_prompt > self.images_per_user_prompt:
            raise InputError(
                f"preferred_per_prompt: wanted at most images_per_user_prompt ({self.images_per_user_prompt}), "
                f"got {self.preferred_per_prompt}"
            )
        if self.diffusiondb is not None and self.system.scored_for != "prompt":
            raise InputError("scored_for: wanted 'prompt' where diffusiondb is given, got 'start'")
