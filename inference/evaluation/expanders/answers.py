"""How a user prompt becomes a model's input, and how its answer becomes the refined prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prip.errors import InputError, PripError, warn

SLOT = "{prompt}"
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("`", "`"))


class RefinementError(PripError):
    """A model's answer holds no refined prompt."""


@dataclass(frozen=True)
class Wording:
    """How a model is asked, and how its answer is read."""

    template: str = SLOT
    """Input of the model; {prompt} is replaced by the user prompt."""
    keep_prompt: bool = False
    """Whether the answer continues the user prompt instead of replacing it."""
    after: str = ""
    """Text that the refined prompt follows, for models that write something else first."""
    stop: Sequence[str] = ()
    """Texts that end the answer."""
    first_line: bool = True
    """Whether only the first remaining line counts."""

    def __post_init__(self) -> None:
        if self.template.count(SLOT) != 1:
            raise InputError(f"template: expected a text that holds {SLOT} once, got {self.template!r}")
        if not all(self.stop):
            raise InputError(f"stop: expected texts that are not empty, got {list(self.stop)!r}")
        if self.keep_prompt and self.after:
            raise InputError(f"after: expected none with keep_prompt, got {self.after!r}")

    def ask(self, user_prompt: str) -> str:
        """Return the model's input for a user prompt."""
        return self.template.replace(SLOT, user_prompt)

    def refined(self, user_prompt: str, answer: str) -> str:
        """Return the refined prompt that an answer holds.

        A continuation that adds nothing leaves the user prompt unchanged, with a PripWarning.

        Raises:
            RefinementError: An answer that replaces the prompt is empty, or lacks `after`.
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
    for end in stop:
        text = text.split(end, 1)[0]
    return text


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def _unquoted(text: str) -> str:
    """Return a text without quotation marks that enclose all of it."""
    for opening, closing in _QUOTES:
        inner = text[len(opening) : -len(closing)]
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing) and opening not in inner:
            return inner.strip()
    return text
