"""From a user prompt to what a model is asked, and from its answer to the refined prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prip.errors import InputError, PripError, warn

SLOT = "{prompt}"
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("`", "`"))


class RefinementError(PripError):
    """A refiner gave nothing that could stand for the refined prompt."""


@dataclass(frozen=True)
class Wording:
    """How a model is asked, and how its answer is read."""

    template: str = SLOT
    """What the model reads; {prompt} is the user prompt."""
    keep_prompt: bool = False
    """Whether the answer continues the user prompt; else it takes its place."""
    after: str = ""
    """The answer begins behind the first of these, where the model writes something else before it."""
    stop: Sequence[str] = ()
    """The answer ends before the first of any of these."""
    first_line: bool = True
    """Whether only the first line counts of what is left."""

    def __post_init__(self) -> None:
        if not isinstance(self.template, str) or self.template.count(SLOT) != 1:
            raise InputError(f"template: wanted a text that holds {SLOT} once, got {self.template!r}")
        if (
            isinstance(self.stop, str)
            or not isinstance(self.stop, Sequence)
            or not all(isinstance(one, str) and one for one in self.stop)
        ):
            raise InputError(f"stop: wanted a list of texts that are not empty, got {self.stop!r}")
        if self.keep_prompt and self.after:
            raise InputError(f"after: an answer that continues the prompt has no {self.after!r} before it")

    def ask(self, user_prompt: str) -> str:
        """Return what the model reads for a user prompt."""
        return self.template.replace(SLOT, user_prompt)

    def refined(self, user_prompt: str, answer: str) -> str:
        """Return the refined prompt that an answer makes of a user prompt.

        Where an answer that continues the prompt adds nothing, that is the user prompt, with a PripWarning. Raises
        RefinementError where an answer that takes the prompt's place is empty, or lacks `after`.
        """
        if self.after:
            if self.after not in answer:
                raise RefinementError(f"the answer for {user_prompt!r} holds no {self.after!r}: {answer[:200]!r}")
            answer = answer.split(self.after, 1)[1]
        if self.keep_prompt:
            added = _first_line(_before(answer, self.stop)) if self.first_line else _before(answer, self.stop)
            if not added.strip():
                warn(f"the model added nothing to {user_prompt!r}")
            return (user_prompt + added).rstrip()
        text = _before(answer, self.stop).strip()
        text = _unquoted(_first_line(text).strip() if self.first_line else text)
        if not text:
            raise RefinementError(f"the answer for {user_prompt!r} holds no prompt: {answer[:200]!r}")
        return text


def _before(text: str, stop: Sequence[str]) -> str:
    for one in stop:
        text = text.split(one, 1)[0]
    return text


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def _unquoted(text: str) -> str:
    """Return a text without the quotation marks around the whole of it."""
    for opening, closing in _QUOTES:
        inner = text[len(opening) : -len(closing)]
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing) and opening not in inner:
            return inner.strip()
    return text
