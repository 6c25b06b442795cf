"""The refiners of every evaluation: the plain prompt, a fixed suffix, and PRIP itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prip.errors import InputError
from prip.options import RefineOptions
from prip.protocols import PromptRefiner
from prip.refiner import Refiner
from prip.text.prompts import join

from ...checkpoint_parts import Parts, load_refiner
from .registry import Context

STAGES = ("rl", "warmup")


def with_modifiers(user_prompt: str, modifiers: Sequence[str]) -> str:
    """Returns the user prompt continued by modifiers as the refiner would continue it; as it is when there are none."""
    return join(user_prompt, " " + ", ".join(modifiers)) if modifiers else user_prompt


class PlainRefiner:
    """The user prompt as it is."""

    sampled = False

    def __init__(self, name: str = "none") -> None:
        self.name = name

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Returns the user prompts."""
        return list(user_prompts)


class SuffixRefiner:
    """The same modifiers for every user prompt."""

    sampled = False

    def __init__(self, name: str, modifiers: Sequence[str]) -> None:
        self.name = name
        self.modifiers = list(modifiers)

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Returns each user prompt with the modifiers behind it."""
        return [with_modifiers(prompt, self.modifiers) for prompt in user_prompts]


class GreedyRefiner:
    """PRIP as it is deployed: greedy, so that the seeds play no part."""

    sampled = False

    def __init__(self, name: str, refiner: Refiner, options: RefineOptions) -> None:
        self.name = name
        self.refiner = refiner
        self.options = options

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Returns the refined prompts. A prompt that leaves no room comes back as it is, with PRIP's warning."""
        return self.refiner(user_prompts, [self.options.seed] * len(user_prompts), self.options)


def make_none(name: str, context: Context) -> PromptRefiner:
    """The kind `none`."""
    return PlainRefiner(name)


def make_suffix(name: str, context: Context, *, text: str) -> PromptRefiner:
    """The kind `suffix`. text: modifiers, with commas between them."""
    modifiers = [one.strip() for one in str(text).split(",") if one.strip()]
    if not modifiers:
        raise InputError(f"refiner {name!r}: text must hold modifiers with commas between them, it is {text!r}")
    return SuffixRefiner(name, modifiers)


def make_prip(
    name: str,
    context: Context,
    *,
    place: str | None = None,
    revision: str | None = None,
    stage: str = "rl",
    encoder: str | None = None,
    dtype: str | None = None,
    quantization: str | None = None,
    keep_attributes: bool = True,
    allow_faults: bool = True,
    strength: float = 1.0,
) -> PromptRefiner:
    """The kind `prip`. place: a checkpoint by name, folder or Hub id, there at `revision`, or a run of training; None
    is the one measured. stage: of a run, and of the one measured, whether the encoder after RL or the one after its
    warm-up is taken; encoder: the folder of another one. dtype, quantization: of a checkpoint; None is
    float32, and none. keep_attributes, allow_faults and strength: as `refine` has them, but faults are allowed: what is
    measured is what the model itself has learned."""
    if stage not in STAGES:
        raise InputError(f"refiner {name!r}: stage must be one of {', '.join(STAGES)}, it is {stage!r}")
    try:
        options = RefineOptions(keep_attributes=keep_attributes, allow_faults=allow_faults, strength=strength)
    except InputError as error:
        raise InputError(f"refiner {name!r}: {error}") from error
    parts = context.parts
    is_checkpoint = place is not None and not (Path(place) / "encoder" / "part").is_dir()
    given = {"stage": stage != "rl", "encoder": encoder is not None}
    if not is_checkpoint:
        loaded = {"revision": revision, "dtype": dtype, "quantization": quantization}
        given = {option: value is not None for option, value in loaded.items()}
    idle = [option for option, is_given in given.items() if is_given]
    if idle:
        what = f"the checkpoint {place!r}" if is_checkpoint else "a run or the checkpoint that is measured"
        raise InputError(f"refiner {name!r}: {', '.join(idle)} must be left out for {what}")
    if place is not None:
        if is_checkpoint:
            refiner = Refiner.from_pretrained(
                place, revision=revision, device=context.device, dtype=dtype, quantization=quantization
            )
            return GreedyRefiner(name, refiner, options)
        parts = Parts.of_run(Path(place))
    chosen = parts.encoder if stage == "rl" else parts.warmup_encoder
    refiner = load_refiner(chosen if encoder is None else Path(encoder), parts.decoder, name, context.device)
    return GreedyRefiner(name, refiner, options)
