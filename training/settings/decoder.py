"""Settings of the decoder warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError

from .shared import TrainSettings, check_at_least, check_fraction, check_heads


@dataclass(frozen=True, kw_only=True)
class LlamaSizes:
    """Sizes of a Llama that is built from scratch."""

    vocab_size: int = 1024
    """Entries of the byte-level BPE tokenizer that is trained on the system prompts; at least 260."""

    hidden_size: int = 128
    """Width of the hidden states."""

    intermediate_size: int = 384
    """Width of the feed-forward layers."""

    layers: int = 3
    """Layers."""

    heads: int = 4
    """Attention heads."""

    def __post_init__(self) -> None:
        check_at_least(self, 260, "vocab_size")
        check_at_least(self, 1, "hidden_size", "intermediate_size", "layers", "heads")
        check_heads("hidden_size", self.hidden_size, self.heads)


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters (peft) on the language model, in place of full fine-tuning."""

    rank: int = 0
    """Rank of the adapters; 0 trains all weights instead."""

    alpha: float = 16.0
    """The adapters' output is scaled by alpha / rank."""

    dropout: float = 0.0
    """Dropout probability before the adapters."""

    modules: tuple[str, ...] = ()
    """Names of the linear layers that get an adapter; empty means every linear layer but the output."""

    save: Literal["adapter", "merged"] = "adapter"
    """adapter: the part holds the adapters and names the base, which must be at hand wherever it is loaded. merged: the
    adapters are added to the weights, all of which the part then holds."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "rank")
        check_fraction(self, "dropout")
        if not self.alpha > 0:
            raise InputError(f"alpha: expected a number above 0, got {self.alpha!r}")


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(TrainSettings):
    """Decoder warm-up: from the pivot of an image to the system prompt that it was made from (Eq. 7)."""

    data: Path | None = None
    """Folder that prepare wrote; null means RUN/data."""

    rewrites: Path | None = None
    """Table of rewrites (user_prompt, system_prompt, split), as prip-train rewrites makes it, whose system prompts are
    learnt in place of those in `data`. The decoder then reads no pivot at all, wants pivot: none, and becomes a refiner
    without an encoder, in RUN/decoder/refiner."""

    pivot: Literal["image", "none"] = "image"
    """image: the decoder reads the image's pivot. none: plain language modelling; without rewrites, the soft tokens
    then enter later through a projection that was never trained (ablation)."""

    base: str | None = None
    """Pretrained causal language model by folder or ID[@REVISION] on the Hub; null builds a Llama from `sizes`, with a
    tokenizer of its own."""

    base_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of what stays frozen of the base (with lora); auto is the one it was saved in. What is trained is
    in 32 bits, unless loop.precision is bf16-true."""

    gradient_checkpointing: bool = False
    """Compute the layers' activations twice and keep none of them: less memory, about a third more time."""

    bucket_window: int = 0
    """Steps whose examples are sorted by length before they are shared out, so that a batch holds prompts of like
    length and little padding; 0 leaves them as the shuffle has them."""

    sizes: LlamaSizes = field(default_factory=LlamaSizes)
    """Sizes of the Llama where base is null."""

    template: str = "{pivot}"
    """Fixed text around the soft tokens; {pivot} marks their place."""

    lora: LoraSettings = field(default_factory=LoraSettings)
    """Low-rank adapters."""

    word_dropout: float = 0.05
    """Probability that a word before the first comma is replaced by a pseudo-word of random letters."""

    learn_prefix: bool = True
    """Whether what stands before the first comma gives a loss as all of the system prompt does (Eq. 7). Else it is read
    alone, as it is when the decoder is deployed, which finishes a prefix and never writes one (ablation)."""

    pivot_noise: float = 0.0
    """Deviation of the noise that training adds to the pivots: it keeps a decoder of few images from learning each by
    heart, and the encoder's pivots, which are averages, are not foreign to it."""

    max_tokens: int = 128
    """Longer system prompts are cut here, without an end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "word_dropout")
        check_at_least(self, 2, "max_tokens")
        check_at_least(self, 0, "pivot_noise", "bucket_window")
        if self.rewrites is not None and self.pivot != "none":
            raise InputError(f"pivot: expected none where rewrites is given, got {self.pivot}")
        if self.template.count("{pivot}") != 1:
            raise InputError(f"template: expected {{pivot}} in it once, got {self.template!r}")
