"""What an evaluation's config can name: kinds of prompt sets, refiners, generators, scorers and embedders.

A kind is a function `make(name, context, *, option=default)`: its keyword-only parameters are the options that the
config may set. Modules are imported when a config names them. A refiner whose `sampled` is False is asked once for each
prompt, any other once for each image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from prip.errors import InputError
from prip.protocols import Generator, PromptRefiner, Reward

from ...checkpoint_parts import Parts

PROMPT_SETS = {
    "miniature": "kinds.miniature:make_prompts",
    "miniature-compositional": "kinds.compositional:make_prompts",
    "file": "kinds.prompt_sets:make_file",
    "hpsv2": "kinds.prompt_sets:make_hpsv2",
    "parti-prompts": "kinds.prompt_sets:make_parti_prompts",
    "geneval": "kinds.prompt_sets:make_geneval",
    "drawbench": "kinds.prompt_sets:make_drawbench",
}
REFINERS = {
    "none": "kinds.refiners:make_none",
    "random-modifiers": "kinds.miniature:make_random",
    "suffix": "kinds.refiners:make_suffix",
    "prip": "kinds.refiners:make_prip",
    "best": "kinds.search:make_best",
    "best-suffix": "kinds.best_suffix:make_best_suffix",
    "causal-lm": "expanders.language_model:make_causal_lm",
    "seq2seq-lm": "expanders.language_model:make_seq2seq_lm",
    "chat": "expanders.chat:make_chat",
}
PER_GENERATOR = ("best",)
"""Kinds of refiners that depend on the generator: what is made is a `PerGenerator`."""
BEST_JUDGE = "truth"
"""The scorer that `best` searches with where its entry names none."""
GENERATORS = {
    "diffusers": "kinds.generators:make_diffusers",
    "renderer": "kinds.miniature:make_renderer",
}
SCORERS = {
    "reward": "kinds.scorers:make_reward",
    "truth": "kinds.miniature:make_truth",
    "second-reward": "kinds.miniature:make_second_reward",
    "subject-accuracy": "kinds.miniature:make_subject_accuracy",
    "asked-for": "kinds.compositional:make_asked_for",
}
EMBEDDERS = {
    "pivots": "kinds.embedders:make_pivots",
}


@dataclass(frozen=True)
class Context:
    """What every kind may read."""

    parts: Parts
    """Folders of the checkpoint or run that is measured."""
    device: str
    seed: int


@dataclass(frozen=True)
class EvaluationPrompt:
    """A user prompt, and what it belongs to."""

    text: str
    category: str = ""
    """Its style or category in the set, a row of the tables for each."""
    unit: str = ""
    """Prompts of one unit are averaged before anything else; the text where it is left out."""
    cluster: str = ""
    """What intervals and tests resample; the unit where it is left out."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", self.unit or self.text)
        object.__setattr__(self, "cluster", self.cluster or self.unit)


class PerGenerator(Protocol):
    """A refiner that depends on the generator that draws for it."""

    name: str

    def on(self, generator: Generator, scorers: Mapping[str, Reward], batch_size: int) -> PromptRefiner:
        """Returns the refiner for this generator. Raises InputError where it needs a scorer that is not there."""
        ...


def check_entry(what: str, name: str, entry: object, kinds: Mapping[str, str]) -> None:
    """Raises InputError unless `entry`, of a config, names a kind and only options that this kind has.

    what: refiner, generator, ... for the message.
    """
    if not isinstance(entry, Mapping) or entry.get("kind") not in kinds:
        kind = entry.get("kind") if isinstance(entry, Mapping) else entry
        raise InputError(f"{what} {name!r}: wanted a kind among {', '.join(kinds)}, got {kind!r}")
    parameters = inspect.signature(_function(kinds[entry["kind"]])).parameters.values()
    options = {one.name: one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    given = [str(option) for option in entry if option != "kind"]
    unknown = sorted(set(given) - set(options))
    if unknown:
        known = ", ".join(options) or "none"
        raise InputError(f"{what} {name!r}: {entry['kind']} has no option {', '.join(unknown)}; its options: {known}")
    missing = [one.name for one in options.values() if one.default is one.empty and one.name not in given]
    if missing:
        raise InputError(f"{what} {name!r}: {entry['kind']} wants {', '.join(missing)}")


def make(what: str, name: str, entry: Mapping[str, Any], kinds: Mapping[str, str], context: Context) -> Any:
    """Returns what an entry of a config describes. Raises InputError where it does not fit its kind."""
    check_entry(what, name, entry, kinds)
    options = {option: value for option, value in entry.items() if option != "kind"}
    return _function(kinds[entry["kind"]])(name, context, **options)


def _function(place: str) -> Callable[..., Any]:
    module, _, function = place.partition(":")
    return getattr(import_module(f"..{module}", __package__), function)
