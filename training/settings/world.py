"""Settings of the miniature's world."""

from __future__ import annotations

from dataclasses import dataclass, field

from prip.errors import InputError

from .shared import LoopSettings, OptimizerSettings, RunSettings, check_at_least, check_fraction, check_heads

PARTS = (
    "reader_a",
    "reader_b",
    "reader_c",
    "trunk",
    "mini-reward",
    "mini-hps",
    "second_reward",
    "pivot_encoder",
    "text_encoder",
    "generator",
)
"""The parts in the order in which they are trained: each needs some of those before it."""

TEXT_HEADS = 4
"""Attention heads of the generator's text encoder."""

TAKEN = "checkpoint"
"""Stands in RUN/world in place of the parts, where they were taken from a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class UnetSizes:
    """Sizes of the generator."""

    channels: tuple[int, ...] = (256,)
    """Channels of the UNet's levels; each further level halves the resolution."""

    patch_size: int = 16
    """Side of the image patches that become one latent position."""

    latent_channels: int = 192
    """Principal components kept of a patch."""

    text_width: int = 128
    """Width of the text encoder."""

    text_layers: int = 2
    """Layers of the text encoder."""

    vocab_size: int = 800
    """Entries of its byte-level BPE tokenizer."""

    max_tokens: int = 77
    """Length of its texts, begin and end included."""

    steps: int = 8
    """Sampling steps."""

    guidance: float = 2.0
    """Strength of classifier-free guidance."""

    prompt_dropout: float = 0.1
    """Probability that training leaves the prompt out, for guidance."""

    subject_weight: float = 4.0
    """How much more the loss counts the subject's pixels than the others."""

    noise_power: float = 1.5
    """Above 1, training sees more of the noisy steps, where the prompt decides."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "patch_size", "latent_channels", "text_width", "text_layers", "vocab_size", "steps")
        check_at_least(self, 0, "guidance", "subject_weight", "noise_power")
        check_at_least(self, 3, "max_tokens")
        check_fraction(self, "prompt_dropout")
        if self.patch_size & (self.patch_size - 1):
            raise InputError(f"unet.patch_size: expected a power of two, got {self.patch_size}")
        if self.latent_channels > 3 * self.patch_size**2:
            raise InputError(
                f"unet.latent_channels: expected at most the {3 * self.patch_size**2} values of a patch, "
                f"got {self.latent_channels}"
            )
        if not self.channels or any(width < 16 or width % 16 for width in self.channels):
            raise InputError(f"unet.channels: expected multiples of 16, got {list(self.channels)}")
        check_heads("unet.text_width", self.text_width, TEXT_HEADS)


@dataclass(frozen=True, kw_only=True)
class WorldSettings(RunSettings):
    """The miniature's frozen parts: generator, pivot encoder, two rewards, three readers, and its prompts."""

    parts: tuple[str, ...] = PARTS
    """Which parts to train; those that a part needs must be there or be named too."""

    checkpoint: str | None = None
    """Take the parts from this whole checkpoint instead of training them: an embedded name (prip-mini), a folder as
    prip-train export writes it, or owner/name on the Hub, with @REVISION where one is wanted."""

    image_size: int = 32
    """Side of the images in pixels."""

    renders: int = 12000
    """Renders on which each reader, reward and the pivot encoder learns; each has its own."""

    generator_renders: int = 40000
    """Renders on which the generator learns."""

    trunk_width: int = 128
    """Width of the vision trunks."""

    pivot_length: int = 8
    """Vectors in a pivot."""

    pivot_width: int = 64
    """Width of a pivot's vectors."""

    label_noise: float = 0.06
    """Temperature of the preference labels from which rewards learn: larger, and more of them are wrong."""

    system_prompts: int = 6000
    """System prompts written for prepare."""

    user_phrasings: int = 4
    """User prompts written for each subject-place combination."""

    log_users: int = 600
    """Users in the log of prompts."""

    log_sessions: int = 4
    """Sessions of each of them."""

    obedience_drawings: int = 500
    """Drawings of held-out prompts by which the generator's obedience is measured."""

    unet: UnetSizes = field(default_factory=UnetSizes)
    """Sizes of the generator."""

    generator_optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(lr=1e-3, warmup_steps=50, schedule="cosine", weight_decay=1e-3)
    )
    """Optimizer of the generator."""

    generator_loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(steps=8000, validate_every=1000, checkpoint_every=200)
    )
    """Training loop of the generator."""

    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(lr=2e-3, warmup_steps=50, schedule="cosine")
    )
    """Optimizer of all other parts."""

    loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(steps=1000, validate_every=500, checkpoint_every=250)
    )
    """Training loop of readers, trunk, pivot encoder and the text encoder's pre-training."""

    reward_loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(steps=3000, batch_size=192, validate_every=500, checkpoint_every=500)
    )
    """Training loop of the rewards; an example is a pair."""

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = sorted(set(self.parts) - set(PARTS))
        if unknown:
            raise InputError(f"parts: expected some of {', '.join(PARTS)}, got {', '.join(unknown)}")
        if self.checkpoint is not None and tuple(self.parts) != PARTS:
            raise InputError("parts, checkpoint: expected one of them at most, got both")
        check_at_least(self, 64, "renders", "generator_renders")
        check_at_least(self, 1, "system_prompts", "user_phrasings", "obedience_drawings", "trunk_width")
        check_at_least(self, 1, "log_users", "log_sessions")
        check_at_least(self, 1, "image_size", "pivot_length", "pivot_width")
        if not self.label_noise > 0:
            raise InputError(f"label_noise: expected a number above 0, got {self.label_noise!r}")
        if self.trunk_width % 16:
            raise InputError(f"trunk_width: expected a multiple of 16, got {self.trunk_width}")
        if self.image_size % self.unet.patch_size or self.image_size % 8:
            raise InputError(f"image_size: expected a multiple of 8 and of unet.patch_size, got {self.image_size}")
        if (self.image_size // self.unet.patch_size) % 2 ** (len(self.unet.channels) - 1):
            raise InputError(
                f"unet.channels: expected at most as many levels as image_size / patch_size can be halved for, "
                f"got {len(self.unet.channels)}"
            )
