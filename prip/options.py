"""Options of `refine`. Every interface takes names, defaults, bounds and help texts from these fields."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import pairwise
from numbers import Integral, Real
from typing import Annotated, Any, TypedDict, TypeVar, get_args, get_origin, get_type_hints

from .errors import InputError, any_of, meant
from .text.prompts import check_user_prompt

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Bounds:
    """The range of a number."""

    minimum: float | None = None
    maximum: float | None = None
    exclusive: bool = False
    """Whether the minimum itself is excluded."""

    def __contains__(self, value: Any) -> bool:
        above = self.minimum is None or (value > self.minimum if self.exclusive else value >= self.minimum)
        return above and (self.maximum is None or value <= self.maximum)

    def __str__(self) -> str:
        """Return the range in words, to follow "a number"."""
        if None not in (self.minimum, self.maximum) and not self.exclusive:
            return f"from {self.minimum} to {self.maximum}"
        if self.minimum is None:
            return "" if self.maximum is None else f"of at most {self.maximum}"
        least = f"{'above' if self.exclusive else 'of at least'} {self.minimum}"
        return least if self.maximum is None else f"{least} and at most {self.maximum}"


@dataclass(frozen=True)
class RefineOptions:
    """What `refine` is asked for besides its prompts; checked when it is created.

    Raises:
        InputError: An option has the wrong type or is out of its bounds.
    """

    num_alternatives: Annotated[int, Bounds(1)] = 1
    """Distinct texts per prompt. With 2 or more, each prompt gives a list: the text that 1 would return, then sampled
    ones (at temperature 1 unless another is set)."""
    seed: int = 0
    """Seed for sampling; the same seed gives the same text, whatever else is in the batch."""
    temperature: Annotated[float, Bounds(0)] = 0.0
    """Sampling temperature; 0 decodes greedily."""
    top_p: Annotated[float, Bounds(0, 1, exclusive=True)] = 0.9
    """Nucleus sampling: sample only from the most likely tokens whose probabilities add up to this value."""
    max_new_tokens: Annotated[int, Bounds(1)] = 60
    """Most tokens to add to a prompt, counted by the prompt decoder's tokenizer."""
    token_budget: Annotated[int | None, Bounds(1)] = None
    """Most tokens in the refined prompt, counted by the text encoder's tokenizer; if not set, all that the text encoder
    reads (75 for CLIP)."""
    banned_terms: Collection[str] = ()
    """Words or phrases never to add, in any letter case."""
    batch_size: Annotated[int, Bounds(1)] = 256
    """Prompts to refine at a time."""
    styles: Sequence[str] = ()
    """Styles, by name (listed in docs/control.md) or as any phrase; they follow your own words as if typed."""
    keep_attributes: bool = True
    """Add nothing that contradicts an attribute (medium, light, color, ...) named by the prompt or a style."""
    no_artists: bool = False
    """Never add the name of an artist."""
    allow_faults: bool = False
    """Allow flaws such as "badly cropped" to be added to a prompt that does not ask for them."""
    strength: Annotated[float, Bounds(0, 1)] = 1.0
    """Share of the modifiers to add, counted from the first; 0 returns each prompt unchanged."""
    webui_syntax: bool = False
    """Count tokens for a program that reads (word:1.2) as a weight and takes <lora:name:0.8> out, such as the webui;
    otherwise brackets are counted as the characters that they are. Regions (BREAK, ADDCOL, ...) then gain modifiers in
    their own chunk, with a token budget each; otherwise the prompt is one text."""

    def __post_init__(self) -> None:
        for option in option_fields():
            option.check(getattr(self, option.name))
        normal_terms(self.banned_terms)
        for index, style in enumerate(self.styles):
            check_user_prompt(style, f"styles[{index}]")


class OneTextOptionsDict(TypedDict, total=False):
    """The options of calls that return one text per prompt: all but num_alternatives."""

    seed: int | Sequence[int]
    temperature: float
    top_p: float
    max_new_tokens: int
    token_budget: int | None
    banned_terms: Collection[str]
    batch_size: int
    styles: Sequence[str]
    keep_attributes: bool
    no_artists: bool
    allow_faults: bool
    strength: float
    webui_syntax: bool


class RefineOptionsDict(OneTextOptionsDict, total=False):
    """RefineOptions as keyword arguments."""

    num_alternatives: int


@dataclass(frozen=True)
class OptionField:
    """One option, as an interface describes and checks it."""

    name: str
    annotation: Any
    """Type of the value: int, int | None, float, bool or Sequence[str]."""
    default: Any
    doc: str
    """What the option means, in one line."""
    bounds: Bounds

    @property
    def kind(self) -> type:
        """int, float or bool; str for a list of strings."""
        return (get_args(self.annotation) or (self.annotation,))[0]

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return get_origin(self.annotation) in (Sequence, Collection)

    @property
    def is_optional(self) -> bool:
        """Whether the value may be None."""
        return type(None) in get_args(self.annotation)

    def check(self, value: object) -> None:
        """Raise InputError unless the value has the option's type and is within its bounds."""
        if self.is_list:
            if isinstance(value, str | bytes) or not isinstance(value, get_origin(self.annotation)):
                raise InputError(f"{self.name}: expected a list of strings, got {value!r}")
        elif self.kind is bool:
            if not isinstance(value, bool):
                raise InputError(f"{self.name}: expected True or False, got {value!r}")
        elif value is not None or not self.is_optional:
            check_number(self.name, value, self.bounds, whole=self.kind is int)


@cache
def option_fields() -> tuple[OptionField, ...]:
    """Return the options in order, read from the fields of RefineOptions and the docstrings under them."""
    found = []
    docs = _docstrings(RefineOptions)
    hints = get_type_hints(RefineOptions, include_extras=True)
    for field in fields(RefineOptions):
        annotation, bounds = hints[field.name], Bounds()
        if get_origin(annotation) is Annotated:
            annotation, bounds = get_args(annotation)
        found.append(OptionField(field.name, annotation, field.default, docs.get(field.name, ""), bounds))
    return tuple(found)


def with_changes(
    options: RefineOptions | None, changes: Mapping[str, Any], unsupported: Collection[str] = ()
) -> RefineOptions:
    """Return options, None for the defaults, with single ones changed.

    Raises:
        InputError: An option is unknown, unsupported or invalid.
    """
    known = [option.name for option in option_fields() if option.name not in unsupported]
    for name in changes:
        if name not in known:
            raise InputError(f"unknown option {name!r}{meant(name, known) or f'; expected {any_of(known)}'}")
    return replace(options or RefineOptions(), **changes)


def with_seeds(
    options: RefineOptions | None, changes: Mapping[str, Any], count: int
) -> tuple[RefineOptions, list[int]]:
    """Return options as `with_changes` does, and the seed of each of `count` prompts: `changes` may have a list.

    Raises:
        InputError: An option is unknown or invalid, or there is not one seed for each prompt.
    """
    seeds = changes.get("seed")
    if not isinstance(seeds, Sequence) or isinstance(seeds, str | bytes):
        options = with_changes(options, changes)
        return options, [options.seed] * count
    for index, seed in enumerate(seeds):
        check_whole(f"seed[{index}]", seed)
    if len(seeds) != count:
        raise InputError(f"seed: expected one for each of the {count} prompts, got {len(seeds)}")
    return with_changes(options, {name: value for name, value in changes.items() if name != "seed"}), [*seeds]


def _docstrings(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a class, in one line; none where Python has no source at hand."""
    try:
        (definition,) = ast.parse(inspect.getsource(kind)).body
    except OSError:
        return {}
    docs = {}
    for statement, following in pairwise(definition.body):  # type: ignore[attr-defined]
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            docs[statement.target.id] = " ".join(following.value.value.split())  # type: ignore
    return docs


def lists_options(function: Function) -> Function:
    """Decorate a function that takes `**changes` to RefineOptions: its signature and docstring list every option."""
    signature = inspect.signature(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    listed = [
        inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.annotation
        )
        for option in option_fields()
    ]
    function.__signature__ = signature.replace(parameters=own + listed)  # type: ignore[attr-defined]
    entries = "".join(f"\n    {option.name}: {option.doc} Default: {option.default!r}." for option in option_fields())
    arguments, returns, rest = inspect.cleandoc(function.__doc__ or "").partition("\n\nReturns:")
    function.__doc__ = arguments + entries + returns + rest
    return function


def check_number(name: str, value: object, bounds: Bounds, whole: bool = False) -> None:
    """Raise InputError unless a value is a finite number, or a whole number, within bounds."""
    fits = isinstance(value, Integral) or (isinstance(value, Real) and not whole and math.isfinite(value))
    if isinstance(value, bool) or not fits or value not in bounds:
        wanted = " ".join(filter(None, ("a whole number" if whole else "a number", str(bounds))))
        raise InputError(f"{name}: expected {wanted}, got {value!r}")


def check_whole(name: str, value: object, least: int | None = None) -> None:
    """Raise InputError unless a value is a whole number, of at least `least` if that is given."""
    check_number(name, value, Bounds(least), whole=True)


def normal_terms(banned_terms: Collection[str]) -> tuple[str, ...]:
    """Return each banned term once, in lower case and with single spaces; commas separate terms.

    Raises:
        InputError: A term is not a string, or is blank.
    """
    for term in banned_terms:
        if not isinstance(term, str) or not term.replace(",", " ").strip():
            raise InputError(f"banned_terms: expected strings with at least one character, got {term!r}")
    single = (" ".join(part.lower().split()) for term in banned_terms for part in term.split(","))
    return tuple(dict.fromkeys(part for part in single if part))
