"""Rules of coherence: which concepts never stand together, and which are never suggested.

rules.json holds `never` (concepts), `one_of` (groups of which a prompt takes one), `clashes` (pairs of groups: none of
one beside any of the other), `least_lift` (concepts that a prompt gets only if they are that much likelier for it than
for any prompt) and `barred` (pairs of words and concepts: a prompt with one of the words gets none of the concepts). A
prompt takes one concept of each category too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cache
from importlib.resources import files
from typing import TypedDict

from ..control.attributes import Value, named_terms, named_values, refused_terms
from ..text.words import words_of
from .concepts import categories, concept_names, named_concepts

_COMPATIBLE = frozenset(("focus",))
"""Attributes whose values may stand together."""


class _Rules(TypedDict):
    never: list[str]
    one_of: list[list[str]]
    clashes: list[tuple[list[str], list[str]]]
    least_lift: dict[str, float]
    barred: list[tuple[list[str], list[str]]]


def never_suggested() -> frozenset[str]:
    """Return the concepts that are never suggested: websites, empty praise, and what changes the content."""
    return frozenset(_rules()["never"])


def least_lift() -> dict[str, float]:
    """Return how much likelier a concept must be for a prompt than for any prompt, where that is asked."""
    return _rules()["least_lift"]


def barred_by(text: str) -> frozenset[str]:
    """Return the concepts that a text refuses, or that do not fit one of its words: black and white for a red car."""
    words, refused = set(words_of(text)), refused_terms(text)
    groups = [concepts for bars, concepts in _rules()["barred"] if not words.isdisjoint(bars)]
    kin = [name for name in concept_names() if not refused.isdisjoint(named_terms(name))]
    return named_concepts(text, negated=True).union(kin, *groups)


def clash(concept: str, others: Iterable[str]) -> bool:
    """Return whether a concept cannot stand beside one of the others, or is one of them."""
    return not _clashing()[concept].isdisjoint(others)


def contradict(concept: str, others: Iterable[str]) -> bool:
    """Return whether a concept contradicts one of the others, and is not merely of the same kind."""
    return not _contradicting().get(concept, frozenset()).isdisjoint(others)


def contradicts_values(modifier: str, values: Collection[Value]) -> bool:
    """Return whether a modifier names another value of an attribute (light, medium, ...) than those given."""
    own = named_values(modifier)
    for attribute in {attribute for attribute, _ in own} - _COMPATIBLE:
        others = {value for value in values if value[0] == attribute}
        if others and others.isdisjoint(own):
            return True
    return False


@cache
def _rules() -> _Rules:
    return json.loads((files(__package__) / "rules.json").read_text(encoding="utf-8"))


@cache
def _clashing() -> dict[str, frozenset[str]]:
    """Return what each concept cannot stand beside, itself included."""
    groups = (*categories().values(), *_rules()["one_of"])
    return _symmetric([*((group, group) for group in groups), *_rules()["clashes"]])


@cache
def _contradicting() -> dict[str, frozenset[str]]:
    """Return what each concept contradicts."""
    return _symmetric(_rules()["clashes"])


def _symmetric(pairs: Iterable[tuple[Iterable[str], Iterable[str]]]) -> dict[str, frozenset[str]]:
    """Return, for each member of a group, all members of the groups on the other side."""
    others: dict[str, set[str]] = defaultdict(set)
    for left, right in pairs:
        for name in left:
            others[name].update(right)
        for name in right:
            others[name].update(left)
    return {name: frozenset(members) for name, members in others.items()}
