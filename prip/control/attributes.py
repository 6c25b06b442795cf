"""Attributes of images (medium, light, color, ...) that prompts name, and the terms that would contradict them.

The table attributes.json maps attribute -> value -> terms; terms are in lower case with single spaces. A term may
belong to several values ("painting"): it names all of them, unless another term already names one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache, lru_cache

from ..text.terms import TermTable, is_negated, with_plain_refusals
from ..text.words import words_of
from . import read_table

Value = tuple[str, str]
"""(attribute, name of the value)"""


@cache
def attributes() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the table: attribute -> value -> terms."""
    table = read_table("attributes")
    return {name: {value: tuple(terms) for value, terms in values.items()} for name, values in table.items()}


@cache
def _values_of() -> dict[str, frozenset[Value]]:
    values_of: dict[str, set[Value]] = defaultdict(set)
    for attribute, values in attributes().items():
        for value, terms in values.items():
            for term in terms:
                values_of[term].add((attribute, value))
    return {term: frozenset(values) for term, values in values_of.items()}


@cache
def _terms() -> TermTable:
    return TermTable(_values_of())


def named_terms(text: str) -> list[str]:
    """Return the terms in a text as whole words, from left to right; of several that begin together, the longest.

    Negated terms ("not a photo", "without bokeh") do not count; hyphens and other marks are read as spaces.
    """
    return _terms().find(text)


def negated_terms(text: str) -> list[str]:
    """Return the terms that a text refuses, from left to right."""
    return _terms().find(text, negated=True)


def names(text: str, term: str) -> bool:
    """Return whether a text names a term, in the table or not, by the rules of `named_terms`."""
    words, wanted = tuple(words_of(with_plain_refusals(text))), tuple(words_of(term))
    starts = range(len(words) - len(wanted) + 1)
    return any(words[i : i + len(wanted)] == wanted and not is_negated(words, i) for i in starts)


@lru_cache(maxsize=4096)
def values_by_term(text: str) -> tuple[frozenset[Value], ...]:
    """Return the values named by each term in a text."""
    return tuple(_values_of()[term] for term in named_terms(text))


def together(values: Iterable[frozenset[Value]]) -> frozenset[Value]:
    """Return the values that terms name together; a term adds nothing if another term names one of its values."""
    union: set[Value] = set()
    for named in sorted(values, key=len):
        if not named & union:
            union |= named
    return frozenset(union)


def named_values(text: str) -> frozenset[Value]:
    """Return the values that a text names."""
    return together(values_by_term(text))


@lru_cache(maxsize=1024)
def attributes_of_choices(choices: tuple[str, ...]) -> frozenset[str]:
    """Return the attributes that texts name which another tool will choose from, or that their wildcards are about."""
    named = {attribute for choice in choices for attribute, _ in named_values(choice)}
    words = {word for choice in choices for word in words_of(choice)}
    return frozenset(named | {attribute for attribute, about in _WILDCARDS.items() if not words.isdisjoint(about)})


_WILDCARDS = {
    "medium": ("medium", "mediums", "media", "style", "styles", "artstyle", "technique"),
    "light": ("light", "lights", "lighting", "time", "timeofday", "daytime", "weather", "sky"),
    "color": ("color", "colors", "colour", "colours", "palette", "tone"),
    "color temperature": ("color", "colors", "colour", "colours", "palette", "tone"),
    "focus": ("focus", "lens", "quality", "detail", "details"),
    "composition": ("composition", "framing", "shot", "shots", "camera"),
    "viewpoint": ("view", "views", "viewpoint", "angle", "angles", "camera"),
}
"""Words in the names of wildcards that tell what attribute their choices are about."""


def terms_of(names_of_attributes: frozenset[str]) -> frozenset[str]:
    """Return the terms of all values of some attributes."""
    return frozenset(
        term for attribute in names_of_attributes for terms in attributes()[attribute].values() for term in terms
    )


@lru_cache(maxsize=1024)
def refused_terms(text: str) -> frozenset[str]:
    """Return the terms that a text refuses, with all terms of their values ("not a painting").

    A value that the text names as well keeps its terms, except for those that are refused literally.
    """
    literal = set(negated_terms(text))
    values = {value for term in literal for value in _values_of()[term]} - named_values(text)
    kept, _ = kept_and_banned(named_values(text))
    kin = {term for attribute, value in values for term in attributes()[attribute][value]} - kept
    return frozenset(kin | literal - set(named_terms(text)))


@lru_cache(maxsize=1024)
def kept_and_banned(values: frozenset[Value]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the terms of these values, and the terms of the other values of their attributes."""
    kept: set[str] = set()
    others: set[str] = set()
    for attribute in {attribute for attribute, _ in values}:
        for value, terms in attributes()[attribute].items():
            (kept if (attribute, value) in values else others).update(terms)
    return frozenset(kept), frozenset(others - kept)
