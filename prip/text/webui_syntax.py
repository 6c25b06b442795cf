"""Prompts on one line and without Stable Diffusion webui syntax, as models read and count them.

`(word:1.2)`, `((word))`, `[word]` and `{word}` are read as their words, `[from:to:0.5]` as its second text, `[a|b]` as
its first. `<lora:name:0.8>`, `BREAK` and the weights of parts joined by `AND` are dropped, and `\\(` is a literal
bracket. Unpaired brackets stay. `(word:0)` and `(word:-1)` are not read: their words are refused. compel's `word++`,
`(word)1.2` and `.blend(1, 1)` are read without these marks, and templates as prip.text.templates says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from .templates import with_first_choices

_BLANKS = re.compile(r"\s+")
_BREAKS = re.compile(r"[\t\n\r]")
_PART = re.compile(r"\bAND\b")
_SIGNS = re.compile(r"[()\[\]{}<>\\]")
_LEFT_OUT = re.compile(r"<\w+:[^<>]*>|\bBREAK\b")
_TOKEN = re.compile(r"\\.|[()\[\]{}:|\\]|[^\\()\[\]{}:|]+")
_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*\Z")
_MARKS = re.compile(r"\+|--|\)|\.swap\(")
_WEIGHTS = re.compile(r"(?<=[^\W_])(?:\++|--+)(?=[\s,.;)\]]|\Z)|(?<=\))(?:\++|-+|\d*\.\d+)(?=[\s,.;)\]]|\Z)")
"""compel's weights: `word++`, `word--`, `(two words)1.2`."""
_CALLS = re.compile(r"(?<=\))\s*\.(?:blend|and)\([^()]*\)|(?<=[^\W_)])\.swap\([^()]*\)")
_JOINED = re.compile(r"\)\s*\.(?:blend|and)\([^()]*\)\s*\Z")
_COMMAS = re.compile(r"(?: ?,)+")
_OPENING = {")": "(", "]": "[", "}": "{"}


@dataclass
class _Open:
    """An opening bracket that is not closed yet."""

    kind: str
    start: int
    """Index of the first piece inside it."""
    colons: list[int] = field(default_factory=list)
    """Indices of its colons, without those of nested brackets."""
    bars: list[int] = field(default_factory=list)


def plain_prompt(user_prompt: str) -> str:
    """Return a prompt on one line without webui syntax; a prompt of nothing else is returned unchanged."""
    return read_prompt(user_prompt).text


def text_read_by_webui(user_prompt: str) -> str:
    """Return the text whose tokens the webui reads: the plain prompt, and also texts with a weight of 0 or less."""
    reading = read_prompt(user_prompt)
    return " ".join([reading.text, *reading.refused])


def with_weights_as_refusals(user_prompt: str) -> str:
    """Return the plain prompt, followed by "no ..." for each text with a weight of 0 or less."""
    reading = read_prompt(user_prompt)
    return ", ".join([reading.text, *(f"no {part.strip()}" for text in reading.refused for part in text.split(","))])


class PromptReading(NamedTuple):
    """What a prompt with syntax says."""

    text: str
    """The plain prompt."""
    refused: tuple[str, ...]
    """Texts whose weight is 0 or less."""
    choices: tuple[str, ...]
    """Texts that may be drawn in place of others, or in turn with them."""


@lru_cache(maxsize=1024)
def read_prompt(user_prompt: str) -> PromptReading:
    """Read a prompt's syntax."""
    template, choices = with_first_choices(user_prompt)
    if choices or template != user_prompt:
        template = _COMMAS.sub(",", " ".join(template.split())).strip(" ,")
        template = template if template.strip(" ,.") else user_prompt
    refused: list[str] = []
    text = _plain(template, refused, choices)
    return PromptReading(text, tuple(refused), tuple(choices))


def _plain(user_prompt: str, refused: list[str], choices: list[str]) -> str:
    """Return the plain prompt; texts with a weight of 0 or less go to `refused`, those that take turns to `choices`."""
    if _BREAKS.search(user_prompt):
        user_prompt = _BLANKS.sub(lambda run: " " if _BREAKS.search(run[0]) else run[0], user_prompt)
    if _MARKS.search(user_prompt):
        user_prompt = _WEIGHTS.sub("", _CALLS.sub("", user_prompt))
    if _PART.search(user_prompt):
        user_prompt = " AND ".join(_read_parts(user_prompt, refused))
    if not _SIGNS.search(user_prompt) and "BREAK" not in user_prompt:
        return user_prompt
    left, count = _LEFT_OUT.subn(" ", user_prompt)
    if not count and not _SIGNS.search(left):
        return user_prompt
    text = " ".join(_without_brackets(left, refused, choices).split())
    text = _COMMAS.sub(",", text).strip(" ,")
    return text if text.strip(" ,.") else user_prompt


def _read_parts(user_prompt: str, refused: list[str]) -> list[str]:
    """Return the parts joined by AND, without their weights; those with a weight of 0 or less go to `refused`."""
    parts = []
    for part in _PART.split(user_prompt):
        text = _without_weight(part)
        if text is not None and text.strip() and float(part.rpartition(":")[2]) <= 0:
            refused.append(text.strip())
        else:
            parts.append((text or part).strip())
    return parts or [user_prompt]


def without_tags(user_prompt: str) -> str:
    """Return a prompt without tags such as <lora:name:0.8> and without BREAK."""
    return _LEFT_OUT.sub(" ", user_prompt)


def ends_in_weight(user_prompt: str) -> bool:
    """Return whether a prompt ends in weights: "a cat AND a dog:1.2", "a cat :1.2", ("a cat", "a dog").blend(1, 2)."""
    if _JOINED.search(user_prompt):
        return True
    before = _without_weight(user_prompt)
    return before is not None and bool(_PART.search(user_prompt) or before[-1:].isspace())


def _without_weight(part: str) -> str | None:
    """Return a part without the weight at its end, None if it has none."""
    before, colon, weight = part.rpartition(":")
    return before if colon and _NUMBER.match(weight) else None


def _without_brackets(text: str, refused: list[str], choices: list[str]) -> str:
    """Return a text with each pair of brackets replaced by what is read of it: one pass with a stack, no recursion.

    Texts in brackets with a weight of 0 or less go to `refused`, those that take turns to `choices`.
    """
    tokens = _TOKEN.findall(text)
    paired = _paired(tokens)
    pieces: list[str] = []
    stack: list[_Open] = []
    for index, token in enumerate(tokens):
        if index in paired and token in _OPENING:
            _reduce(stack.pop(), pieces, refused, choices)
        elif index in paired:
            stack.append(_Open(token, len(pieces)))
        else:
            if stack and token == ":":
                stack[-1].colons.append(len(pieces))
            elif stack and token == "|":
                stack[-1].bars.append(len(pieces))
            pieces.append(token[1] if len(token) == 2 and token[0] == "\\" and token[1] in "()[]{}\\" else token)
    return "".join(pieces)


def _paired(tokens: list[str]) -> set[int]:
    """Return the indices of all brackets that have a partner."""
    opened: list[int] = []
    paired: set[int] = set()
    for index, token in enumerate(tokens):
        if token in _OPENING.values():
            opened.append(index)
        elif opened and token in _OPENING and tokens[opened[-1]] == _OPENING[token]:
            paired.update((opened.pop(), index))
    return paired


def _reduce(bracket: _Open, pieces: list[str], refused: list[str], choices: list[str]) -> None:
    """Remove the pieces inside a bracket that are not read."""
    numbered = bool(bracket.colons) and bracket.colons[-1] == len(pieces) - 2 and bool(_NUMBER.match(pieces[-1]))
    if numbered:
        weight = float(pieces[-1])
        del pieces[bracket.colons[-1] :]
        if bracket.kind == "(" and weight <= 0:
            refused.append("".join(pieces[bracket.start :]))
            del pieces[bracket.start :]
    if bracket.kind == "[" and numbered and len(bracket.colons) == 2:
        choices += ["".join(pieces[bracket.start : bracket.colons[0]]), "".join(pieces[bracket.colons[0] + 1 :])]
        del pieces[bracket.start : bracket.colons[0] + 1]
    elif bracket.kind == "[" and bracket.bars:
        choices += "".join(pieces[bracket.start :]).split("|")
        del pieces[bracket.bars[0] :]
