"""Settings of the stage that tunes the generator itself on the rewards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError

from .shared import DrawingSettings, TrainSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class PullSettings:
    """How the rewards of images that are drawn pull the generator."""

    weight: float = 1e-3
    """Weight of the rewards' loss beside the anchors' (lambda)."""

    cap: float = 2.0
    """An image whose standardised sum of rewards is larger pulls no more."""

    last_steps: int = 10
    """The step through which the gradient goes is drawn from so many, the sampler's last."""

    prompts: Literal["user", "system"] = "user"
    """What is drawn: user prompts, or DATA/system_prompts.parquet, whose images are scored for what stands before the
    first comma."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "weight")
        check_at_least(self, 1, "last_steps")


@dataclass(frozen=True, kw_only=True)
class AnchorSettings:
    """Images that the generator drew before it was tuned, which it is to go on denoising as it did."""

    weight: float = 1.0
    """Weight of their denoising loss."""

    images: int = 512
    """How many are drawn before the first step; each step takes loop.batch_size of them."""

    prompts: Literal["user", "system"] = "system"
    """Whose images they are: those of DATA/system_prompts.parquet keep up how the generator follows modifiers."""

    prompt_dropout: float = 0.1
    """Probability that the prompt of one is left out in its loss: guidance wants to know what images without a prompt
    look like."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "weight")
        check_at_least(self, 1, "images")
        check_fraction(self, "prompt_dropout")


@dataclass(frozen=True, kw_only=True)
class TuneDevSettings:
    """What the best generator is chosen by: the rewards of images that it draws with its whole sampler."""

    prompts: int = 48
    """User prompts of the dev split."""

    images_per_prompt: int = 2
    """Images of each; their seeds stay the same. Their spread tells whether they become alike."""

    preview_prompts: int = 6
    """User prompts in the picture of untuned and tuned images that each measurement leaves; 0 draws none."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "prompts")
        check_at_least(self, 2, "images_per_prompt")
        check_at_least(self, 0, "preview_prompts")


@dataclass(frozen=True, kw_only=True)
class TuneSettings(DrawingSettings, TrainSettings):
    """Reward feedback learning of the generator, as ImageReward's Algorithm 1 (ReFL) does it.

    The network that denoises learns, all else is frozen. The whole pipeline is then in RUN/tune/part.
    """

    reward_dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the rewards' weights."""

    user_prompts: Path | None = None
    """Parquet file with the columns user_prompt and split; null means RUN/parts/prompts/user_prompts.parquet."""

    data: Path | None = None
    """Folder that prepare wrote (DATA); null means RUN/data."""

    statistics: Path | None = None
    """JSON file with the rewards' means and deviations on unrefined images; null means DATA/rewards.json."""

    pull: PullSettings = field(default_factory=PullSettings)
    """How the rewards pull."""

    anchor: AnchorSettings = field(default_factory=AnchorSettings)
    """What holds the generator to what it was."""

    dev: TuneDevSettings = field(default_factory=TuneDevSettings)
    """What the best generator is chosen by."""

    gradient_checkpointing: bool = False
    """Compute the network's activations twice and keep none of them: less memory, about a third more time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_unsharded("tune")
        if self.loop.precision == "bf16-true":
            raise InputError("loop.precision: wanted 32-true or bf16-mixed for tune, got bf16-true")
