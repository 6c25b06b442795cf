"""Settings of end-to-end reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError

from .shared import DrawingSettings, LoopSettings, OptimizerSettings, TrainSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class PartsSettings(DrawingSettings):
    """The parts that are trained and trained with, by path or Hub name."""

    encoder: Path | None = None
    """The warmed-up preference encoder; null means RUN/encoder/part. A decoder that reads no pivot does without."""

    decoder: Path | None = None
    """The prompt decoder; null means RUN/decoder/part."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights that stay as they are: decoder (or encoder), generator and rewards. What learns is
    trained in its own, and so is the warmed-up one that it is held to."""

    reward_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Number format of the rewards, where it is to be another; null means that of `dtype`. A score has 8 bits in
    bfloat16 and 11 in float16, which is about ten times as near to float32."""

    user_prompts: Path | None = None
    """Parquet file with the columns user_prompt and split; null means RUN/parts/prompts/user_prompts.parquet."""

    statistics: Path | None = None
    """JSON file with the rewards' means and deviations on unrefined images; null means RUN/data/rewards.json where that
    has them, and else that they are measured."""


@dataclass(frozen=True, kw_only=True)
class ChunkSettings:
    """How much each device does at once: this bounds memory, and the results do not depend on it."""

    refine: int = 256
    """User prompts that are refined at once; each has a key-value cache of the decoder's."""

    images: int = 256
    """Images that are drawn, held and scored at once. How many go through the generator's networks together is among
    its own options."""

    score: int = 256
    """Rollouts whose log-probabilities are computed at once, without gradients."""

    update: int = 256
    """Rollouts that a gradient is computed of at once; those of a minibatch are added up."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "refine", "images", "score", "update")


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How user prompts are refined, drawn and rewarded. loop.batch_size says how many there are in an iteration."""

    samples_per_prompt: int = 3
    """Refinements of each user prompt in an iteration; they share their images' seeds."""

    images_per_prompt: int = 1
    """Images of each refinement, over which its reward is the mean."""

    seed_pool: int = 8
    """Image seeds that each user prompt has; an iteration takes images_per_prompt of them. The plain image of a user
    prompt and seed is drawn once. With a pool of images_per_prompt, none is drawn after the first pass over the
    prompts; with a larger one, pass p finds the share 1 - (1 - images_per_prompt / seed_pool) ** (p - 1) drawn."""

    max_new_tokens: int = 60
    """Tokens that the decoder adds at most."""

    token_budget: int = 75
    """Tokens of the whole refined prompt at most."""

    counted_by: Literal["clip", "generator"] = "clip"
    """Whose tokens they are: CLIP's, or those of the generator's own tokenizer, of which it is to read all."""

    statistics_images: int = 128
    """Unrefined images on which the rewards' means and deviations are measured, where that is to be done."""

    dev_prompts: int = 48
    """User prompts of the dev split on which the best part is chosen, refined greedily."""

    dev_images_per_prompt: int = 2
    """Images of each of them; their seeds stay the same."""

    preview_every: int = 10
    """Iterations between two pictures of plain and refined images of the dev split; 0 draws none."""

    preview_prompts: int = 6
    """User prompts in such a picture."""

    chunk: ChunkSettings = field(default_factory=ChunkSettings)
    """What is done at once."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "samples_per_prompt", "images_per_prompt", "seed_pool", "max_new_tokens")
        check_at_least(self, 1, "token_budget", "dev_prompts", "dev_images_per_prompt", "preview_prompts")
        check_at_least(self, 2, "statistics_images")
        check_at_least(self, 0, "preview_every")
        if self.images_per_prompt > self.seed_pool:
            raise InputError(
                f"images_per_prompt: wanted at most seed_pool ({self.seed_pool}), got {self.images_per_prompt}"
            )


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """The policy's updates on the rollouts of an iteration. Of these, grpo and rloo read epochs, minibatch, ratio_clip
    and kl; grpo reads entropy too."""

    baseline: Literal["group", "value"] = "group"
    """group: a refinement's advantage is its reward against those of the same user prompt, and the KL is in the loss.
    value: a value head and generalised advantages, and the KL is in the reward."""

    epochs: int = 3
    """Passes over the rollouts of an iteration."""

    minibatch: int = 64
    """Rollouts in an optimizer step, those of all devices together."""

    ratio_clip: float = 0.2
    """How far the ratio of new to old probability may leave 1."""

    value_clip: float = 0.2
    """How far a value may leave the old one. With baseline: value."""

    kl: float = 0.03
    """Weight of the KL to the warmed-up model."""

    entropy: float = 0.0
    """Weight of the entropy bonus."""

    discount: float = 1.0
    """Discount of later rewards (gamma). With baseline: value."""

    trace: float = 0.95
    """Decay of the generalised advantages (lambda). With baseline: value."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "minibatch")
        check_at_least(self, 0, "kl", "entropy")
        check_fraction(self, "discount", "trace")
        for name in ("ratio_clip", "value_clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: wanted a number above 0, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class RlSettings(TrainSettings):
    """End-to-end reinforcement learning of the encoder (Eq. 3), or of the decoder.

    A refined prompt's reward is that of its images less that of the plain prompt's. A step of the loop is an iteration:
    rollouts, and the updates on them.
    """

    algorithm: Literal["ppo", "grpo", "rloo"] = "ppo"
    """ppo: proximal policy optimisation of the tokens. grpo, rloo: TRL's GRPOTrainer or RLOOTrainer, on the same
    rollouts; the rewards of a user prompt's refinements are compared with each other."""

    learns: Literal["encoder", "decoder"] = "encoder"
    """encoder: the gradient reaches it through the frozen decoder, as in the paper. decoder: the encoder is frozen, or
    absent where the decoder reads no pivot; the decoder's adapters learn if it has any, else all of its weights."""

    offload: tuple[Literal["generator", "rewards", "decoder"], ...] = ()
    """Parts that wait in the CPU's memory while others work."""

    parts: PartsSettings = field(default_factory=PartsSettings)
    """The parts."""

    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    """Refining, drawing and rewarding."""

    ppo: PpoSettings = field(default_factory=PpoSettings)
    """The policy's updates."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """The optimizer; its schedule counts iterations."""

    loop: LoopSettings = field(default_factory=LoopSettings)
    """The training loop: steps are iterations, batch_size is the number of user prompts in one."""

    push_to_hub: str | None = None
    """Publish the refiner under this name on the Hub, owner/name; --push-to-hub is as good."""

    private: bool = False
    """Publish to a private repository."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ppo.baseline == "group" and self.rollouts.samples_per_prompt < 2:
            raise InputError(
                f"samples_per_prompt: wanted at least 2 for baseline: group, got {self.rollouts.samples_per_prompt}"
            )
        if self.learns == "decoder":
            self._check_decoder()
        if self.algorithm != "ppo":
            self._check_trl()

    def _check_decoder(self) -> None:
        """Raises InputError for what a decoder that learns cannot be combined with."""
        if self.algorithm != "ppo":
            raise InputError(f"algorithm: wanted ppo for learns: decoder, got {self.algorithm}")
        self.check_unsharded("learns: decoder")
        if "decoder" in self.offload:
            raise InputError(f"offload: wanted no decoder for learns: decoder, got {', '.join(self.offload)}")

    def _check_trl(self) -> None:
        """Raises InputError for what TRL's trainers cannot do."""
        name = self.algorithm
        if self.ppo.baseline != "group":
            raise InputError(f"baseline: wanted group for algorithm: {name}, got {self.ppo.baseline}")
        if name == "rloo" and self.ppo.entropy:
            raise InputError(f"entropy: wanted 0 for algorithm: rloo, got {self.ppo.entropy}")
        if self.loop.accumulate > 1:
            raise InputError(f"accumulate: wanted 1 for algorithm: {name}, got {self.loop.accumulate}")
        if self.loop.keep_parts:
            raise InputError(f"keep_parts: wanted false for algorithm: {name}, got true")
        self.check_unsharded(f"algorithm: {name}")
        if self.offload:
            raise InputError(f"offload: wanted none for algorithm: {name}, got {', '.join(self.offload)}")
