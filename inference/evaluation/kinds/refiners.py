"""The refiners of every evaluation: the plain prompt, a fixed suffix, and PRIP itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prip.errors import InputError
from prip.options import RefineOptions
from prip.protocols import PromptRefiner
from prip.refiner import Refiner
from prip.text.prompts import join

from ...checkpoint_parts import Parts, load_refiner
from .registry import Context


def with_modifiers(user_prompt: str, modifiers: Sequence[str]) -> str:
    """Return the user prompt continued by modifiers as the refiner would write it; unchanged without modifiers."""
    return join(user_prompt, " " + ", ".join(modifiers)) if modifiers else user_prompt


class SuffixRefiner:
    """Adds the same modifiers, if any, to every user prompt."""

    sampled = False

    def __init__(self, name: str, modifiers: Sequence[str]) -> None:
        self.name = name
        self.modifiers = list(modifiers)

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return each user prompt followed by the modifiers."""
        return [with_modifiers(prompt, self.modifiers) for prompt in user_prompts]


class GreedyRefiner:
    """PRIP with greedy decoding, as it is deployed; the seeds are not used."""

    sampled = False

    def __init__(self, name: str, refiner: Refiner, options: RefineOptions) -> None:
        self.name = name
        self.refiner = refiner
        self.options = options

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return the refined prompts. A prompt that fills the token budget stays as it is, with PRIP's warning."""
        return self.refiner(user_prompts, [self.options.seed] * len(user_prompts), self.options)


@dataclass(frozen=True)
class PripSource:
    """Where PRIP's networks are loaded from."""

    place: str | None = None
    """A checkpoint by name, folder or Hub id, or a training run; None is the one that is evaluated."""
    revision: str | None = None
    """Branch, tag or commit of a checkpoint on the Hub."""
    stage: Literal["rl", "warmup"] = "rl"
    """Of a run, the encoder after reinforcement learning or after its warm-up."""
    encoder: str | None = None
    """Folder of another encoder."""
    dtype: str | None = None
    """Precision of a checkpoint; None is float32."""
    quantization: str | None = None
    """Quantization of a checkpoint; None is none."""

    def __post_init__(self) -> None:
        if self.is_checkpoint:
            unused = {"stage": self.stage != "rl", "encoder": self.encoder is not None}
        else:
            unused = {name: getattr(self, name) is not None for name in ("revision", "dtype", "quantization")}
        for name in [name for name, is_set in unused.items() if is_set]:
            source = "a checkpoint" if self.is_checkpoint else "a run or the evaluated checkpoint"
            raise InputError(f"{name}: expected none for {source}, got {getattr(self, name)!r}")

    @property
    def is_checkpoint(self) -> bool:
        return self.place is not None and not (Path(self.place) / "encoder" / "part").is_dir()

    def load(self, name: str, context: Context) -> Refiner:
        """Load the refiner."""
        if self.place is not None and self.is_checkpoint:
            return Refiner.from_pretrained(
                self.place,
                revision=self.revision,
                device=context.device,
                dtype=self.dtype,
                quantization=self.quantization,
            )
        parts = context.parts if self.place is None else Parts.of_run(Path(self.place))
        own = parts.encoder if self.stage == "rl" else parts.warmup_encoder
        encoder = own if self.encoder is None else Path(self.encoder)
        return load_refiner(encoder, parts.decoder, name, context.device)


def make_none(name: str, context: Context) -> PromptRefiner:
    """The kind `none`."""
    return SuffixRefiner(name, ())


def make_suffix(name: str, context: Context, *, text: str) -> PromptRefiner:
    """The kind `suffix`. text: modifiers, separated by commas."""
    modifiers = [modifier.strip() for modifier in text.split(",") if modifier.strip()]
    if not modifiers:
        raise InputError(f"text: expected modifiers separated by commas, got {text!r}")
    return SuffixRefiner(name, modifiers)


def make_prip(
    name: str,
    context: Context,
    *,
    source: PripSource,
    keep_attributes: bool = True,
    allow_faults: bool = True,
    strength: float = 1.0,
) -> PromptRefiner:
    """The kind `prip`; the options are those of `PripSource` and of `refine`.

    Faults are allowed by default: the evaluation measures what the model has learned.
    """
    options = RefineOptions(keep_attributes=keep_attributes, allow_faults=allow_faults, strength=strength)
    return GreedyRefiner(name, source.load(name, context), options)
