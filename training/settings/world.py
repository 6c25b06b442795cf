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
"""The parts, in training order: each may need earlier ones."""

TEXT_HEADS = 4
"""Attention heads of the generator's text encoder."""

TAKEN = "checkpoint"
"""Folder in RUN/world that replaces those of the parts if they come from a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class UnetSizes:
    """Sizes of the generator."""

    channels: tuple[int, ...] = (256,)
    """Channels of the UNet per level; each further level halves the resolution."""
    patch_size: int = 16
    """Side in pixels of the image patch of one latent position; a power of two."""
    latent_channels: int = 192
    """Principal components kept per patch."""
    text_width: int = 128
    """Width of the text encoder."""
    text_layers: int = 2
    """Layers of the text encoder."""
    vocab_size: int = 800
    """Entries of its byte-level BPE tokenizer."""
    max_tokens: int = 77
    """Maximum text length in tokens, with begin and end."""
    steps: int = 8
    """Sampling steps."""
    guidance: float = 2.0
    """Classifier-free guidance scale."""
    prompt_dropout: float = 0.1
    """Probability of dropping the prompt in training, for guidance."""
    subject_weight: float = 4.0
    """Extra weight of the subject's pixels in the loss."""
    noise_power: float = 1.5
    """Exponent of the timestep distribution; above 1, training favors noisy steps, where the prompt matters most."""

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
    """Train the miniature's frozen parts (generator, pivot encoder, two rewards, three readers), and write its
    prompts."""

    parts: tuple[str, ...] = PARTS
    """Parts to train; the parts that they need must exist or be listed too."""
    checkpoint: str | None = None
    """Checkpoint to take the parts from instead of training them: an embedded name (prip-mini), a folder of prip-train
    export, or owner/name[@REVISION] on the Hub."""
    image_size: int = 32
    """Side of the images in pixels; a multiple of 8 and of unet.patch_size."""
    renders: int = 12000
    """Training renders of each reader, each reward and the pivot encoder; no two of them share a render."""
    generator_renders: int = 40000
    """Training renders of the generator."""
    trunk_width: int = 128
    """Width of the vision trunks; a multiple of 16."""
    pivot_length: int = 8
    """Vectors per pivot."""
    pivot_width: int = 64
    """Width of a pivot's vectors."""
    label_noise: float = 0.06
    """Temperature of the preference labels that the rewards learn from; a higher one makes more labels wrong."""
    system_prompts: int = 6000
    """System prompts written for prepare."""
    user_phrasings: int = 4
    """User prompts written per subject-place combination."""
    log_users: int = 600
    """Users in the prompt log."""
    log_sessions: int = 4
    """Sessions per user in the prompt log."""
    obedience_drawings: int = 500
    """Drawings of held-out prompts on which the generator's prompt following is measured."""
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
    """Training loop of the readers, the trunk, the pivot encoder and the text encoder."""
    reward_loop: LoopSettings = field(
        default_factory=lambda: LoopSettings(steps=3000, batch_size=192, validate_every=500, checkpoint_every=500)
    )
    """Training loop of the rewards; an example is a pair of images."""

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
