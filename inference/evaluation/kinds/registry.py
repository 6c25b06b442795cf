"""The kinds that an evaluation's config can name: prompt sets, refiners, generators, scorers and embedders.

A kind is a function `make(name, context, *, option=default)`. Its keyword-only parameters are the options of an entry
in the config; a parameter whose type is a dataclass stands for the fields of that dataclass. The module of a kind is
imported when a config names it. A refiner with `sampled = False` is called once per prompt, any other once per image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Generic, Protocol, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from prip.errors import InputError, any_of, meant
from prip.protocols import Generator, Images, PromptRefiner, Reward
from prip.settings_parser import ValuesParser

from ...checkpoint_parts import Parts

Entry = Mapping[str, Any]
"""A kind and its options."""
Embedder = Callable[[Images], NDArray[np.float32]]
"""Maps images to vectors `(n, width)`; diversity is measured by their distances."""
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What every kind may read."""

    parts: Parts
    """Folders of the checkpoint or run that is evaluated."""
    device: str
    seed: int


@dataclass(frozen=True)
class EvaluationPrompt:
    """A user prompt and the groups that it belongs to."""

    text: str
    category: str = ""
    """Style or category within the set; each has its own row in the tables."""
    unit: str = ""
    """Prompts of one unit are averaged before anything else; defaults to the text."""
    cluster: str = ""
    """What intervals and tests resample; defaults to the unit."""
    references: frozenset[str] = frozenset()
    """Concepts that the prompt's own writer added, where they are known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", self.unit or self.text)
        object.__setattr__(self, "cluster", self.cluster or self.unit)


class PerGenerator(Protocol):
    """A refiner that depends on the generator that draws its prompts."""

    name: str

    def on(self, generator: Generator, scorers: Mapping[str, Reward], batch_size: int) -> PromptRefiner:
        """Return the refiner for a generator.

        Raises:
            InputError: The refiner needs a scorer that `scorers` lacks.
        """


class Kinds(dict[str, str], Generic[T]):
    """The kinds of one section of a config: name of the kind to "module:function"."""

    def __init__(self, section: str, functions: Mapping[str, str]) -> None:
        """section: what an entry describes, for error messages."""
        super().__init__(functions)
        self.section = section

    def check(self, name: str, entry: object) -> None:
        """Check an entry of a config without building what it describes.

        Raises:
            InputError: The kind is unknown, or an option is unknown, missing or of the wrong type.
        """
        self._function_and_options(name, entry)

    def make(self, name: str, entry: object, context: Context) -> T:
        """Build what an entry of a config describes. Errors as for `check`, and those of the kind itself."""
        function, options = self._function_and_options(name, entry)
        try:
            return function(name, context, **options)
        except InputError as error:
            raise self._error(name, str(error)) from error

    def function(self, kind: str) -> Callable[..., T]:
        """Import and return the function of a kind."""
        module, _, function = self[kind].partition(":")
        return getattr(import_module(f"..{module}", __package__), function)

    def _function_and_options(self, name: str, entry: object) -> tuple[Callable[..., T], dict[str, Any]]:
        kind: Any = entry.get("kind") if isinstance(entry, Mapping) else entry
        if not isinstance(entry, Mapping) or kind not in self:
            guess = meant(str(kind), list(self))
            raise self._error(name, f"kind: expected {any_of(list(self))}, got {kind!r}{guess}")
        function = self.function(kind)
        try:
            return function, _parsed_options(function, {key: value for key, value in entry.items() if key != "kind"})
        except InputError as error:
            raise self._error(
                name, f"{kind}: {error}" if str(error).startswith("unknown option") else str(error)
            ) from error

    def _error(self, name: str, message: str) -> InputError:
        label = name if name == self.section else f"{self.section} {name!r}"
        return InputError(message if message.startswith(f"{label}: ") else f"{label}: {message}")


def _parsed_options(function: Callable[..., object], given: Entry) -> dict[str, Any]:
    """Return the keyword arguments of a kind's function, checked against its annotations and those of its dataclasses.

    Raises InputError for an option that does not fit.
    """
    keywords = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    # Only these annotations are evaluated: those of results may name what is imported for type checkers alone.
    annotated = SimpleNamespace(__annotations__={name: function.__annotations__[name] for name in keywords})
    types = get_type_hints(annotated, getattr(function, "__globals__", None))
    groups = {name: types[name] for name in keywords if is_dataclass(types[name])}
    parser = ValuesParser(exit_on_error=False)
    parser.add_function_arguments(function, skip={"name", "context", *groups}, fail_untyped=False)
    for group in groups.values():
        parser.add_class_arguments(group)
    values = parser.values_of(given)
    built = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
    return {**values, **built}


PROMPT_SETS: Kinds[list[EvaluationPrompt]] = Kinds(
    "prompts",
    {
        "miniature": "kinds.miniature:make_prompts",
        "miniature-compositional": "kinds.compositional:make_prompts",
        "file": "kinds.prompt_sets:make_file",
        "hpsv2": "kinds.prompt_sets:make_hpsv2",
        "parti-prompts": "kinds.prompt_sets:make_parti_prompts",
        "geneval": "kinds.prompt_sets:make_geneval",
        "drawbench": "kinds.prompt_sets:make_drawbench",
        "real-prompts": "kinds.prior:make_real_prompts",
    },
)
REFINERS: Kinds[PromptRefiner | PerGenerator] = Kinds(
    "refiner",
    {
        "none": "kinds.refiners:make_none",
        "random-modifiers": "kinds.miniature:make_random",
        "suffix": "kinds.refiners:make_suffix",
        "prior-only": "kinds.prior:make_prior_only",
        "prip": "kinds.refiners:make_prip",
        "best": "kinds.search:make_best",
        "best-suffix": "kinds.best_suffix:make_best_suffix",
        "causal-lm": "expanders.language_model:make_causal_lm",
        "seq2seq-lm": "expanders.language_model:make_seq2seq_lm",
        "chat": "expanders.chat:make_chat",
    },
)
PER_GENERATOR = ("best",)
"""Kinds of refiners that build a `PerGenerator`."""
BEST_JUDGE = "truth"
"""The scorer that `best` searches with unless its entry names another."""
GENERATORS: Kinds[Generator] = Kinds(
    "generator",
    {"diffusers": "kinds.generators:make_diffusers", "renderer": "kinds.miniature:make_renderer"},
)
SCORERS: Kinds[Reward] = Kinds(
    "scorer",
    {
        "reward": "kinds.scorers:make_reward",
        "truth": "kinds.miniature:make_truth",
        "second-reward": "kinds.miniature:make_second_reward",
        "subject-accuracy": "kinds.miniature:make_subject_accuracy",
        "asked-for": "kinds.compositional:make_asked_for",
    },
)
EMBEDDERS: Kinds[Embedder] = Kinds("embedder", {"pivots": "kinds.scorers:make_pivots"})
