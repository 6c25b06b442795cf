"""Settings of the encoder warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .shared import TrainSettings, check_at_least, check_fraction, check_heads


@dataclass(frozen=True, kw_only=True)
class T5Sizes:
    """Sizes of a T5 built from scratch."""

    vocab_size: int = 1024
    """Entries of the byte-level BPE tokenizer, which is trained on the user prompts; at least 260."""
    d_model: int = 128
    """Hidden width."""
    d_ff: int = 256
    """Width of the feed-forward layers."""
    layers: int = 2
    """Layers of the encoder, and of the decoder."""
    heads: int = 4
    """Attention heads."""
    dropout: float = 0.0
    """Dropout probability in training."""

    def __post_init__(self) -> None:
        check_at_least(self, 260, "vocab_size")
        check_at_least(self, 1, "d_model", "d_ff", "layers", "heads")
        check_fraction(self, "dropout")
        check_heads("d_model", self.d_model, self.heads)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(TrainSettings):
    """Warm up the preference encoder: from a user prompt to the pivot of its preferred image (Eq. 6)."""

    data: Path | None = None
    """Folder written by prepare; null means RUN/data."""
    images: Literal["preferred", "random"] = "preferred"
    """Target pivot: that of the preferred image, or of a random image of the same prompt (the paper's ablation)."""
    base: str | None = None
    """Pretrained T5, as a folder or ID[@REVISION] on the Hub; null builds one from `sizes`, with its own tokenizer."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    sizes: T5Sizes = field(default_factory=T5Sizes)
    """Sizes of the T5 if base is null."""
    word_dropout: float = 0.05
    """Probability of replacing a word of the user prompt with a pseudo-word of random letters, against overfitting to
    known subjects."""
    max_tokens: int = 128
    """Maximum length of user prompts; the encoder reads no more of longer ones, neither in training nor in use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "word_dropout")
        check_at_least(self, 2, "max_tokens")
