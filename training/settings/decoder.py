"""Settings of the decoder warm-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prip.errors import InputError

from .shared import TrainSettings, check_at_least, check_fraction, check_heads


@dataclass(frozen=True, kw_only=True)
class LlamaSizes:
    """Sizes of a Llama built from scratch."""

    vocab_size: int = 1024
    """Entries of the byte-level BPE tokenizer, which is trained on the system prompts; at least 260."""
    hidden_size: int = 128
    """Hidden width."""
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
    """LoRA on the language model (peft) instead of full fine-tuning."""

    rank: int = 0
    """Rank of the adapters; 0 trains all weights instead."""
    alpha: float = 16.0
    """Scale: the output of the adapters is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Dropout probability before the adapters."""
    modules: tuple[str, ...] = ()
    """Names of the linear layers with an adapter; empty means all but the output layer."""
    save: Literal["adapter", "merged"] = "adapter"
    """adapter stores the adapters and the name of the base model, which is needed to load them; merged stores the base
    model with the adapters merged into its weights."""

    def __post_init__(self) -> None:
        check_at_least(self, 0, "rank")
        check_fraction(self, "dropout")
        if not self.alpha > 0:
            raise InputError(f"alpha: expected a number above 0, got {self.alpha!r}")


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(TrainSettings):
    """Warm up the prompt decoder: from the pivot of an image to the system prompt it was made from (Eq. 7)."""

    data: Path | None = None
    """Folder written by prepare; null means RUN/data."""
    rewrites: Path | None = None
    """Table of rewrites (user_prompt, system_prompt, split) of prip-train rewrites, whose system prompts replace those
    in `data`. It requires pivot: none; the result is a refiner without an encoder, in RUN/decoder/refiner."""
    pivot: Literal["image", "none"] = "image"
    """image conditions the decoder on the image's pivot; none is plain language modeling (the paper's ablation), where
    without rewrites the soft tokens later come from an untrained projection."""
    base: str | None = None
    """Pretrained causal language model, as a folder or ID[@REVISION] on the Hub; null builds a Llama from `sizes`, with
    its own tokenizer."""
    base_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the base model's frozen weights, with lora; auto is the dtype it was saved in. Trained weights are in
    fp32, unless loop.precision is bf16-true."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    bucket_window: int = 0
    """Above 0, the examples of each step are sorted by length before they are split into its loop.accumulate batches,
    which then need little padding; which examples a step takes stays random. 0 disables sorting."""
    sizes: LlamaSizes = field(default_factory=LlamaSizes)
    """Sizes of the Llama if base is null."""
    template: str = "{pivot}"
    """Fixed text around the soft tokens; {pivot} marks their position."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Low-rank adapters."""
    word_dropout: float = 0.05
    """Probability of replacing a word before the first comma with a pseudo-word of random letters, so that modifiers
    are not tied to known subjects."""
    learn_prefix: bool = True
    """Whether the text before the first comma contributes to the loss, as in Eq. 7; otherwise it is only read, as at
    inference, where the decoder continues a prefix (ablation)."""
    pivot_noise: float = 0.0
    """Standard deviation of the noise added to pivots in training, against memorizing single images, and to prepare the
    decoder for the encoder's smoother pivots."""
    max_tokens: int = 128
    """Maximum length of system prompts; longer ones are truncated, without an end token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "word_dropout")
        check_at_least(self, 2, "max_tokens")
        check_at_least(self, 0, "pivot_noise", "bucket_window")
        if self.rewrites is not None and self.pivot != "none":
            raise InputError(f"pivot: expected none where rewrites is given, got {self.pivot}")
        if self.template.count("{pivot}") != 1:
            raise InputError(f"template: expected {{pivot}} in it once, got {self.template!r}")

    def packages(self) -> list[tuple[str, str]]:
        return [*super().packages(), *([("peft", "train")] if self.lora.rank else [])]
