"""What a call of `refine` asks for besides its prompts. Checked without torch: a mistake is told at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from .errors import InputError
from .processing import check_user_prompt


@dataclass(frozen=True)
class RefineOptions:
    """The options of `Refiner.refine`, which tells what they mean. Raises InputError for one that cannot be used."""

    num_alternatives: int = 1
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 0.9
    max_new_tokens: int = 60
    token_budget: int | None = None
    banned_terms: Sequence[str] = ()
    batch_size: int = 256
    styles: Sequence[str] = ()
    keep_attributes: bool = True
    no_artists: bool = False
    allow_faults: bool = False
    strength: float = 1.0

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> RefineOptions:
        """Return the options among the arguments of a call, by their names. Raises KeyError for one that lacks."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:
        check_whole("num_alternatives", self.num_alternatives, 1)
        check_whole("seed", self.seed)
        _check_temperature(self.temperature)
        _check_top_p(self.top_p)
        check_whole("max_new_tokens", self.max_new_tokens, 1)
        if self.token_budget is not None:
            check_whole("token_budget", self.token_budget, 1)
        normal_terms(self.banned_terms)
        check_whole("batch_size", self.batch_size, 1)
        _check_styles(self.styles)
        for name in ("keep_attributes", "no_artists", "allow_faults"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise InputError(f"{name} must be True or False, it is {value!r}")
        _check_strength(self.strength)


def check_whole(name: str, value: object, least: int | None = None) -> None:
    """Raise InputError unless a value is a whole number, of at least `least` where that is given."""
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
        wanted = "a whole number" + ("" if least is None else f" of at least {least}")
        raise InputError(f"{name} must be {wanted}, it is {value!r}")


def normal_terms(banned_terms: object) -> tuple[str, ...]:
    """Return each banned term once, in lower case, with single spaces; a comma stands between two terms.

    Raises InputError when they are no list of strings, or one is blank.
    """
    if isinstance(banned_terms, str) or not isinstance(banned_terms, Sequence | set | frozenset):
        raise InputError(f"banned_terms must be a list of strings, it is {banned_terms!r}")
    for term in banned_terms:
        if not isinstance(term, str) or not term.replace(",", " ").strip():
            raise InputError(f"banned_terms must be strings with at least one character, {term!r} came")
    single = (" ".join(part.lower().split()) for term in banned_terms for part in term.split(","))
    return tuple(dict.fromkeys(part for part in single if part))


def _check_styles(styles: object) -> None:
    if isinstance(styles, str) or not isinstance(styles, Sequence):
        raise InputError(f"styles must be a list of strings, it is {styles!r}")
    for place, style in enumerate(styles):
        try:
            check_user_prompt(style)
        except InputError as error:
            raise InputError(f"styles[{place}]: {str(error).replace('prompt', 'style', 1)}") from error


def _check_strength(strength: object) -> None:
    if isinstance(strength, bool) or not isinstance(strength, Real):
        raise InputError(f"strength must be a number, it is {strength!r}")
    if not 0 <= float(strength) <= 1:
        raise InputError(f"strength must be between 0 (nothing is added) and 1 (all), it is {strength!r}")


def _check_top_p(top_p: object) -> None:
    if isinstance(top_p, bool) or not isinstance(top_p, Real):
        raise InputError(f"top_p must be a number, it is {top_p!r}")
    if not 0 < float(top_p) <= 1:
        raise InputError(f"top_p must be above 0 and at most 1, it is {top_p!r}")


def _check_temperature(temperature: object) -> None:
    if isinstance(temperature, bool) or not isinstance(temperature, Real):
        raise InputError(f"temperature must be a number, it is {temperature!r}")
    if not math.isfinite(temperature) or float(temperature) < 0:
        raise InputError(f"temperature must be 0 (greedy) or above, it is {temperature!r}")
