"""Terms of a table in a text: whole words, the longest of those that begin together, negated or not."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from .words import words_of

NO_LIST = re.compile(
    r"(?:(?<!\w)(?:--|[–—])no\b|\bnegative(?: prompts?)?\s*[:=])(.*?)(?=\s(?:--|[–—])[a-z]|\n|\Z)", re.I | re.S
)
"""Refuses all that follows, up to the next flag or line: "--no text, people", "Negative prompt: text, people"."""
_WITHOUT = re.compile(r"\b([^\W_]+)-free\b", re.I)
_UNWANTED = re.compile(r" (?:is|are) (?:not (?:wanted|allowed|welcome)|unwanted|forbidden|prohibited|banned)\b", re.I)
_MARKS = re.compile(r"[,.;:()\n]")
_LONGEST_SUBJECT = 3
"""Words before "is not wanted" that are all refused; of more, only the last one is."""

_NEGATIONS = frozenset(
    tuple(phrase.split())
    for phrase in (
        *("no", "not", "without", "never", "non", "avoid", "avoiding", "exclude", "excluding", "dont", "isnt"),
        *("neither", "nor", "cannot", "can t", "w o", "sans", "minus", "omit", "omitting", "skip", "lacking"),
        *("forbid", "ban", "hate", "hates", "dislike", "zero", "leave out", "except", "except for", "nothing like"),
        *("don t", "isn t", "doesn t", "aren t", "shouldn t", "won t", "mustn t", "wasn t", "doesnt", "arent"),
        *("instead of", "rather than", "anything but", "other than", "free of", "devoid of", "lack of", "free from"),
    )
)
_LONGEST_NEGATION = max(map(len, _NEGATIONS))
_FILLERS = frozenset(
    (
        *("a", "an", "any", "the", "more", "too", "it", "be", "as", "in", "like", "of"),
        *("kind", "sort", "trace", "hint"),
        *("use", "using", "make", "making", "made", "add", "adding", "draw", "want", "look", "looking", "include"),
        *("show", "style", "visible", "please"),
    )
)
"""Words that may stand between a negation and what it negates: "don't make it a photo"."""
_MOST_FILLERS = 4


class TermTable:
    """A set of terms that texts are searched for; case, hyphens and other marks do not matter."""

    def __init__(self, terms: Iterable[str]) -> None:
        """terms: in lower case with single spaces."""
        by_first_word: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for term in terms:
            words = tuple(term.split())
            by_first_word[words[0]].append(words)
        self._by_first_word = {first: sorted(terms, key=len, reverse=True) for first, terms in by_first_word.items()}

    def find(self, text: str, negated: bool = False) -> list[str]:
        """Return the terms that a text names, from left to right.

        Negated terms ("not a photo", "no photo or sketch") do not count; with `negated`, they alone do.
        """
        words = tuple(words_of(with_plain_refusals(text)))
        terms: list[str] = []
        index, refused_until = 0, -1
        while index < len(words):
            for term in self._by_first_word.get(words[index], ()):
                if words[index : index + len(term)] == term:
                    is_listed = index > 0 and words[index - 1] == "or" and refused_until == index - 1
                    refused = is_listed or is_negated(words, index)
                    if refused is negated:
                        terms.append(" ".join(term))
                    index += len(term)
                    refused_until = index if refused else -1
                    break
            else:
                index += 1
        return terms


def with_plain_refusals(text: str) -> str:
    """Return a text in which other ways of refusing are spelled with "no": "bokeh-free" becomes "no bokeh"."""
    if NO_LIST.search(text):
        text = NO_LIST.sub(lambda found: "".join(f" , no {part}" for part in re.split(r"[,;|]", found[1])), text)
    text = _WITHOUT.sub(r"no \1,", text)
    clauses = _UNWANTED.split(text)
    return ",".join([*map(_with_refused_subject, clauses[:-1]), clauses[-1]])


def _with_refused_subject(text: str) -> str:
    """Return a text that stands before "is not wanted" with a "no" before what that refers to."""
    subject = _MARKS.split(text)[-1]
    words = subject.split()
    refused = words if len(words) <= _LONGEST_SUBJECT else words[-1:]
    kept = text.rstrip()[: len(text.rstrip()) - len(" ".join(refused))] if refused else text
    return f"{kept} no {' '.join(refused)}"


def is_negated(words: Sequence[str], index: int) -> bool:
    """Return whether a negation stands before the word at `index`, with at most a few words like articles between."""
    for end in range(index, max(index - _MOST_FILLERS, 0) - 1, -1):
        if any(tuple(words[max(end - length, 0) : end]) in _NEGATIONS for length in range(1, _LONGEST_NEGATION + 1)):
            return True
        if not end or words[end - 1] not in _FILLERS:
            return False
    return False
