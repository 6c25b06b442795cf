"""Settings of the stage that tunes the generator itself on the rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError

from .shared import DrawingSettings, TrainSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class PullSettings:
    """The reward loss on newly drawn images."""

    weight: float = 1e-3
    """Weight of the reward loss relative to the anchor loss (lambda)."""
    cap: float = 2.0
    """Standardized sum of rewards above which an image has no gradient."""
    last_steps: int = 10
    """The gradient passes through one sampling step, chosen at random among this many last ones."""
    prompts: Literal["user", "system"] = "user"
    """Prompts to draw: user prompts, or DATA/system_prompts.parquet, whose images are scored for the text before the
    first comma."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "weight")
        check_at_least(self, 1, "last_steps")


@dataclass(frozen=True, kw_only=True)
class AnchorSettings:
    """Images drawn by the untuned generator, which the tuned one must denoise equally well."""

    weight: float = 1.0
    """Weight of the denoising loss."""
    images: int = 512
    """Images drawn before the first step, of which each step uses loop.batch_size."""
    prompts: Literal["user", "system"] = "system"
    """Prompts of the anchors; those of DATA/system_prompts.parquet preserve how the generator follows modifiers."""
    prompt_dropout: float = 0.1
    """Probability of dropping an anchor's prompt, because guidance needs predictions without a prompt."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "weight")
        check_at_least(self, 1, "images")
        check_fraction(self, "prompt_dropout")


@dataclass(frozen=True, kw_only=True)
class TuneDevSettings:
    """Dev images, drawn with all sampling steps, whose rewards choose the best generator."""

    prompts: int = 48
    """User prompts of the dev split."""
    images_per_prompt: int = 2
    """Images per prompt, with fixed seeds; their spread shows a loss of diversity."""
    preview_prompts: int = 6
    """User prompts in the preview picture of untuned and tuned images after each measurement; 0 for none."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "prompts")
        check_at_least(self, 2, "images_per_prompt")
        check_at_least(self, 0, "preview_prompts")


@dataclass(frozen=True, kw_only=True)
class TuneSettings(DrawingSettings, TrainSettings):
    """Reward feedback learning (ReFL, ImageReward's Algorithm 1) of the generator.

    Only the denoiser learns. The tuned pipeline is written to RUN/tune/part.
    """

    reward_dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the rewards."""
    user_prompts: Path | None = None
    """Parquet file with the columns user_prompt and split; null means RUN/parts/prompts/user_prompts.parquet."""
    data: Path | None = None
    """Folder that prepare wrote (DATA); null means RUN/data."""
    statistics: Path | None = None
    """JSON file with means and deviations of the rewards on unrefined images; null means DATA/rewards.json."""
    pull: PullSettings = field(default_factory=PullSettings)
    """The reward loss."""
    anchor: AnchorSettings = field(default_factory=AnchorSettings)
    """The anchor loss, which keeps the generator close to its untuned state."""
    dev: TuneDevSettings = field(default_factory=TuneDevSettings)
    """The images that choose the best generator."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_unsharded("tune")
        if self.loop.precision == "bf16-true":
            raise InputError("loop.precision: expected 32-true or bf16-mixed for tune, got bf16-true")
