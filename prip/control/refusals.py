"""What a prompt refuses, in the user's own words: "a beach without people, no hats" refuses people and hats."""

from __future__ import annotations

import re
from collections import defaultdict

from ..text.terms import is_negated, with_plain_refusals
from ..text.webui_syntax import with_weights_as_refusals
from ..text.words import words_of
from .attributes import negated_terms

_QUOTED = re.compile(r'"[^"]*"|“[^”]*”|«[^»]*»')
_TITLE = re.compile(r"(?<=[a-z,;] )No(?: [A-Z][\w']*)+|\bNO(?: [A-Z]{2,})+")
"""No Time to Die, inside a sentence; NO PARKING."""
_OPENING = re.compile(
    r"""\b(?:no(?!\s(?:one|longer|matter|doubt|idea|way|end|sooner|less|wonder|other|nonsense)\b)
    |not(?=\s(?:an?|any|the)\b)|without|w/o|sans|minus|omit(?:ting)?|avoid(?:ing)?|exclud(?:e|ing)|forbid|lacking
    |(?:free|devoid|lack)\ of|free\ from|instead\ of|rather\ than|anything\ but|leave\ out|nothing\ like
    |(?:do\ not|don['’]?t|never)\s(?:add|use|draw|show|include|want|make\ it|make)|neither|nor)\b""",
    re.I | re.X,
)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_ARTICLES = frozenset(("a", "an", "any", "the", "more", "kind", "sort", "of", "trace", "hint", "too", "like", "it"))
_LISTING = frozenset(("or", "nor"))
_ENDING = frozenset(
    (
        *("and", "but", "with", "in", "on", "at", "of", "to", "for", "from", "by", "under", "over", "behind", "near"),
        *("is", "are", "was", "were", "that", "which", "who", "where", "while", "as", "just", "only", "please", "into"),
        *("no", "not", "without", "instead", "rather", "visible", "around", "left", "inside", "against", "during"),
        *("beside", "before", "after", "through", "across", "above", "below", "than", "he", "she", "they", "wearing"),
    )
)
_MOST_WORDS = 4
MOST_PHRASES = 50
"""More phrases fit no negative prompt."""


def refused_phrases(user_prompt: str) -> tuple[str, ...]:
    """Return what a prompt refuses, in its order and in lower case, without the words that it asks for as well."""
    text = _QUOTED.sub(" ", with_plain_refusals(with_weights_as_refusals(user_prompt)))
    text = text if text.isupper() else _TITLE.sub(" ", text)
    phrases = [*_phrases_after_negations(text), *(term.removeprefix("the ") for term in negated_terms(text))]
    asked = asked_words(text, phrases)
    kept = [" ".join(word for word in phrase.split() if _spread(word).isdisjoint(asked)) for phrase in phrases]
    distinct = [phrase for phrase in dict.fromkeys(kept) if phrase][:MOST_PHRASES]
    return tuple(phrase for phrase in distinct if not any(_holds(other, phrase) for other in distinct))


def asked_words(text: str, refused: list[str]) -> frozenset[str]:
    """Return the words of a text, singular and plural, that stand outside what it refuses."""
    words = words_of(text)
    beginning: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for phrase in refused:
        beginning[words_of(phrase)[0]].add(tuple(words_of(phrase)))
    inside: set[int] = set()
    for start, word in enumerate(words):
        if word in beginning and (is_negated(words, start) or words[max(start - 1, 0)] in _LISTING):
            lengths = [len(phrase) for phrase in beginning[word] if tuple(words[start : start + len(phrase)]) == phrase]
            inside.update(range(start, start + max(lengths, default=0)))
    asked = {word for index, word in enumerate(words) if index not in inside} - _ARTICLES - _LISTING - _ENDING
    return frozenset().union(*map(_spread, asked))


def _spread(word: str) -> set[str]:
    """Return the lower-case words of a hyphenated one, each with its singular or plural."""
    return {form for part in words_of(word) for form in (part, part + "s", part.removesuffix("s"))}


def _holds(other: str, phrase: str) -> bool:
    return other != phrase and f" {phrase} " in f" {other} "


def _phrases_after_negations(text: str) -> list[str]:
    """Return the words after each negation, up to a mark or a word that begins something else."""
    phrases = []
    for opening in _OPENING.finditer(text):
        phrase: list[str] = []
        end = opening.end()
        for word in _WORD.finditer(text, end):
            between, lower = text[end : word.start()], word[0].lower()
            ends = bool(between.strip()) or lower in _ENDING or len(phrase) == _MOST_WORDS
            if ends or (lower in _LISTING and phrase):
                phrases.append(" ".join(phrase))
                phrase = []
                if ends:
                    break
            elif phrase or lower not in _ARTICLES:
                phrase.append(lower)
            end = word.end()
        phrases.append(" ".join(phrase))
    return [phrase for phrase in phrases if phrase]
