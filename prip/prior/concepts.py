"""Concepts: what users ask for besides the content of an image ("sharp focus"), each with its wordings.

The table concepts.json maps category -> concept -> further wordings, in lower case with single spaces; a concept's name
is a wording too. Artists are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from ..text.terms import TermTable
from ..text.words import words_of

_SEPARATORS = re.compile(r"[,;|]|\.(?!\d)|\s[-–—]\s(?=\w{3})")
_EMPHASIS = re.compile(r":\s*-?\d*\.?\d+(?=\s*[)\]])|[()\[\]{}]")
_HEAD_WORDS = 3


@dataclass(frozen=True)
class SplitPrompt:
    """A system prompt as its writer composed it."""

    head: str
    """What the image shows: the text before the first concept that stands between separators."""
    named: frozenset[str]
    """Concepts that the head names."""
    added: tuple[str, ...]
    """Concepts that stand between separators after the head, in the writer's order, without those that it names."""


@cache
def categories() -> dict[str, tuple[str, ...]]:
    """Return the concepts of each category."""
    return {category: tuple(concepts) for category, concepts in _table().items()}


@cache
def concept_names() -> tuple[str, ...]:
    """Return all concepts, in the order of the table."""
    return tuple(concept for concepts in categories().values() for concept in concepts)


@cache
def concept_columns() -> dict[str, int]:
    """Return the column of each concept in tables of all concepts."""
    return {concept: column for column, concept in enumerate(concept_names())}


def named_concepts(text: str, negated: bool = False) -> frozenset[str]:
    """Return the concepts that a text names anywhere, as whole words, or with `negated` those that it refuses."""
    return frozenset(_concept_of()[term] for term in _terms().find(text, negated))


def concept_of(modifier: str) -> str | None:
    """Return the concept that a modifier is a wording of, or None."""
    return _concept_of().get(" ".join(words_of(modifier)))


def split_prompt(prompt: str) -> SplitPrompt:
    """Split a real system prompt into its head and the concepts that its writer added.

    The brackets and weights of web interfaces are ignored. Segments after the head that are no concept (artists,
    further content) are skipped.
    """
    segments = [segment.strip(" \"'") for segment in _SEPARATORS.split(_EMPHASIS.sub("", prompt)) if words_of(segment)]
    if not segments:
        return SplitPrompt("", frozenset(), ())
    head, concepts = segments[:1], list[str]()
    for segment in segments[1:]:
        concept = concept_of(segment)
        if concept is not None:
            concepts.append(concept)
        elif not concepts and len(head) == 1 and len(segment.split()) >= _HEAD_WORDS:
            head.append(segment)
    text = ", ".join(head)
    named = named_concepts(text)
    added = tuple(concept for concept in dict.fromkeys(concepts) if concept not in named)
    return SplitPrompt(text, named, added)


def distinct_prompts(lines: Iterable[str]) -> dict[str, SplitPrompt]:
    """Return the distinct prompts that show something, in lower case with single spaces, in order of appearance."""
    prompts: dict[str, SplitPrompt] = {}
    for line in lines:
        text = " ".join(line.split())
        if text.lower() not in prompts and (prompt := split_prompt(text)).head:
            prompts[text.lower()] = prompt
    return prompts


@cache
def _table() -> dict[str, dict[str, list[str]]]:
    return json.loads((files(__package__) / "concepts.json").read_text(encoding="utf-8"))


@cache
def _concept_of() -> dict[str, str]:
    """Return the concept of each wording."""
    return {
        " ".join(words_of(wording)): concept
        for concepts in _table().values()
        for concept, wordings in concepts.items()
        for wording in (concept, *wordings)
    }


@cache
def _terms() -> TermTable:
    return TermTable(_concept_of())
