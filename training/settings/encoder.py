"""Settings of the encoder warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .shared import TrainSettings, check_at_least, check_fraction, check_heads


@dataclass(frozen=True, kw_only=True)
class T5Sizes:
    """Sizes of a T5 that is built from scratch."""

    vocab_size: int = 1024
    """Entries of the byte-level BPE tokenizer that is trained on the user prompts; at least 260."""

    d_model: int = 128
    """Width of the hidden states."""

    d_ff: int = 256
    """Width of the feed-forward layers."""

    layers: int = 2
    """Layers of the encoder, and again of the decoder."""

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
    """Encoder warm-up: from a user prompt to the pivot of its preferred image (Eq. 6)."""

    data: Path | None = None
    """Folder that prepare wrote; null means RUN/data."""

    images: Literal["preferred", "random"] = "preferred"
    """Whose pivot is the target: the preferred image's, or that of any image of the same prompt (ablation)."""

    base: str | None = None
    """Pretrained T5 by folder or ID[@REVISION] on the Hub; null builds one from `sizes`, with a tokenizer of its
    own."""

    gradient_checkpointing: bool = False
    """Compute the layers' activations twice and keep none of them: less memory, about a third more time."""

    sizes: T5Sizes = field(default_factory=T5Sizes)
    """Sizes of the T5 where base is null."""

    word_dropout: float = 0.05
    """Probability that a word of the user prompt is replaced by a pseudo-word of random letters."""

    max_tokens: int = 128
    """Longer user prompts are cut here in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "word_dropout")
        check_at_least(self, 2, "max_tokens")
