"""Settings of end-to-end reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError

from .shared import DrawingSettings, LoopSettings, OptimizerSettings, TrainSettings, check_at_least, check_fraction


@dataclass(frozen=True, kw_only=True)
class PartsSettings(DrawingSettings):
    """The parts of the stage, each a folder or a name on the Hub."""

    encoder: Path | None = None
    """The warmed-up preference encoder; null means RUN/encoder/part. Not used with a decoder that reads no pivot."""
    decoder: Path | None = None
    """The prompt decoder; null means RUN/decoder/part."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Dtype of the frozen weights: decoder (or encoder), generator and rewards. The trained part and the reference keep
    their own."""
    reward_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Dtype of the rewards; null means `dtype`. Scores have 8 significant bits in bfloat16 and 11 in float16."""
    user_prompts: Path | None = None
    """Parquet file with the columns user_prompt and split; null means RUN/parts/prompts/user_prompts.parquet."""
    statistics: Path | None = None
    """JSON file with means and deviations of the rewards on unrefined images; null means RUN/data/rewards.json, or to
    measure them if that file lacks them."""


@dataclass(frozen=True, kw_only=True)
class ChunkSettings:
    """How much each device processes at once. This bounds memory; results do not depend on it."""

    refine: int = 256
    """User prompts refined at once; each needs a key-value cache of the decoder."""
    images: int = 256
    """Images drawn, kept and scored at once; the generator has a batch size of its own in generator_options."""
    score: int = 256
    """Rollouts whose log-probabilities are computed at once, without gradients."""
    update: int = 256
    """Rollouts per backward pass; the gradients of a minibatch are accumulated."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "refine", "images", "score", "update")


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """How user prompts are refined, drawn and rewarded; an iteration takes loop.batch_size of them."""

    samples_per_prompt: int = 3
    """Refinements of each user prompt in an iteration; they share their image seeds."""
    images_per_prompt: int = 1
    """Images of each refinement; its reward is their mean."""
    seed_pool: int = 8
    """Image seeds per user prompt, of which an iteration uses images_per_prompt. The plain image of a user prompt and a
    seed is drawn once: pass p over the prompts finds the share 1 - (1 - images_per_prompt / seed_pool) ** (p - 1) in
    the cache."""
    max_new_tokens: int = 60
    """Maximum number of tokens that the decoder adds."""
    token_budget: int = 75
    """Maximum number of tokens of the whole refined prompt."""
    counted_by: Literal["clip", "generator"] = "clip"
    """Tokenizer that counts the token budget: CLIP's, or the generator's own, whose limit then also applies."""
    statistics_images: int = 128
    """Unrefined images on which means and deviations of the rewards are measured, if no file has them."""
    dev_prompts: int = 48
    """Prompts of the dev split, refined greedily to choose the best part."""
    dev_images_per_prompt: int = 2
    """Images of each dev prompt, with fixed seeds."""
    preview_every: int = 10
    """Iterations between preview pictures of plain and refined dev images; 0 for none."""
    preview_prompts: int = 6
    """User prompts in a preview picture."""
    chunk: ChunkSettings = field(default_factory=ChunkSettings)
    """How much is processed at once."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "samples_per_prompt", "images_per_prompt", "seed_pool", "max_new_tokens")
        check_at_least(self, 1, "token_budget", "dev_prompts", "dev_images_per_prompt", "preview_prompts")
        check_at_least(self, 2, "statistics_images")
        check_at_least(self, 0, "preview_every")
        if self.images_per_prompt > self.seed_pool:
            raise InputError(
                f"images_per_prompt: expected at most seed_pool ({self.seed_pool}), got {self.images_per_prompt}"
            )


@dataclass(frozen=True, kw_only=True)
class PpoSettings:
    """Updates of the policy on the rollouts of an iteration. Of these, grpo and rloo read only epochs, minibatch,
    ratio_clip and kl, and grpo also entropy."""

    baseline: Literal["group", "value"] = "group"
    """group: advantages relative to the other refinements of the user prompt, with the KL in the loss. value: a value
    head and generalized advantages, with the KL in the reward."""
    epochs: int = 3
    """Passes over the rollouts of an iteration."""
    minibatch: int = 64
    """Rollouts per optimizer step, over all devices."""
    ratio_clip: float = 0.2
    """Clipping range of the ratio of new to old probabilities, around 1."""
    value_clip: float = 0.2
    """Clipping range of a value around its old one; only for baseline: value."""
    value_lr: float | None = None
    """Peak learning rate of the value head; null means optimizer.lr. Only for baseline: value."""
    kl: float = 0.03
    """Weight of the KL divergence from the warmed-up model."""
    adaptive_kl: float | None = None
    """Adapt the weight after every iteration, by 2 % at most, to hold that divergence at this many nats per token; `kl`
    is the first weight. null keeps it fixed. Only for algorithm: ppo."""
    target_kl: float | None = None
    """End an iteration's updates, with a warning, once the policy is this many nats per token from the one that sampled
    the rollouts; null never does. Only for algorithm: ppo."""
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    discount: float = 1.0
    """Discount factor (gamma); only for baseline: value."""
    trace: float = 0.95
    """Decay of generalized advantages (lambda); only for baseline: value."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "epochs", "minibatch")
        check_at_least(self, 0, "kl", "entropy")
        check_fraction(self, "discount", "trace")
        if self.adaptive_kl is not None and not self.kl > 0:
            raise InputError(f"kl: expected a first weight above 0 for adaptive_kl, got {self.kl!r}")
        for name in ("ratio_clip", "value_clip", "value_lr", "adaptive_kl", "target_kl"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise InputError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class RlSettings(TrainSettings):
    """End-to-end reinforcement learning of the preference encoder (Eq. 3), or of the prompt decoder.

    The reward of a refined prompt is the score of its images minus that of the plain images. A step of the loop is an
    iteration: rollouts and the updates on them.
    """

    algorithm: Literal["ppo", "grpo", "rloo"] = "ppo"
    """ppo: token-level proximal policy optimization. grpo, rloo: TRL's GRPOTrainer or RLOOTrainer on the same rollouts,
    with rewards relative to the other refinements of the user prompt."""
    learns: Literal["encoder", "decoder"] = "encoder"
    """encoder: trained through the frozen decoder, as in the paper. decoder: the encoder is frozen, or absent if the
    decoder reads no pivot; only the decoder's adapters are trained if it has any, else all of its weights."""
    offload: tuple[Literal["generator", "rewards", "decoder"], ...] = ()
    """Parts kept in CPU memory while unused, as in [generator,rewards]."""
    parts: PartsSettings = field(default_factory=PartsSettings)
    """The parts."""
    rollouts: RolloutSettings = field(default_factory=RolloutSettings)
    """Refining, drawing and rewarding."""
    ppo: PpoSettings = field(default_factory=PpoSettings)
    """Updates of the policy."""
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    """The optimizer; its schedule counts iterations."""
    loop: LoopSettings = field(default_factory=LoopSettings)
    """The training loop: steps are iterations, batch_size is the number of user prompts in each."""
    push_to_hub: str | None = None
    """Publish the refiner on the Hub as owner/name; also --push-to-hub."""
    private: bool = False
    """Publish to a private repository."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ppo.baseline == "group" and self.rollouts.samples_per_prompt < 2:
            raise InputError(
                f"samples_per_prompt: expected at least 2 for baseline: group, got {self.rollouts.samples_per_prompt}"
            )
        if self.loop.accumulate > 1:
            raise InputError(
                f"accumulate: expected 1 for rl, which takes several steps per batch, got {self.loop.accumulate}"
            )
        if self.ppo.target_kl is not None:
            self.check_unsharded("ppo.target_kl")
        if self.learns == "decoder":
            self._check_decoder()
        if self.algorithm != "ppo":
            self._check_trl()

    def packages(self) -> list[tuple[str, str]]:
        trl = [("trl", "train"), ("datasets", "train")] if self.algorithm != "ppo" else []
        return [*super().packages(), *trl]

    def _check_decoder(self) -> None:
        """Raise InputError for settings that do not work with a decoder that learns."""
        if self.algorithm != "ppo":
            raise InputError(f"algorithm: expected ppo for learns: decoder, got {self.algorithm}")
        self.check_unsharded("learns: decoder")
        if "decoder" in self.offload:
            raise InputError(f"offload: expected no decoder for learns: decoder, got {', '.join(self.offload)}")

    def _check_trl(self) -> None:
        """Raise InputError for settings that TRL's trainers do not support."""
        name = self.algorithm
        if self.ppo.baseline != "group":
            raise InputError(f"baseline: expected group for algorithm: {name}, got {self.ppo.baseline}")
        for option in ("adaptive_kl", "target_kl"):
            if (value := getattr(self.ppo, option)) is not None:
                raise InputError(f"{option}: expected null for algorithm: {name}, got {value}")
        if name == "rloo" and self.ppo.entropy:
            raise InputError(f"entropy: expected 0 for algorithm: rloo, got {self.ppo.entropy}")
        if self.loop.keep_parts:
            raise InputError(f"keep_parts: expected false for algorithm: {name}, got true")
        self.check_unsharded(f"algorithm: {name}")
        if self.offload:
            raise InputError(f"offload: expected none for algorithm: {name}, got {', '.join(self.offload)}")
        rows = self.loop.batch_size * self.rollouts.samples_per_prompt
        if self.ppo.minibatch % self.devices or rows % (self.ppo.minibatch // self.devices):
            raise InputError(
                f"minibatch: expected {self.devices} (processes) times a divisor of {rows} (batch_size x "
                f"samples_per_prompt) for algorithm: {name}, got {self.ppo.minibatch}"
            )
