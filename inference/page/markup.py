"""The page's own HTML, rendered from templates/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from prip.errors import InputError
from prip.text.prompts import modifiers_added, own_words

from .pictures import Board
from .session import Entry, Notice, Session

LARGE = 256
"""Images with a longer side are smoothed; smaller ones keep crisp pixels."""
GRADIO_SYNTAX = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`\\"}


def safe(value: object) -> Markup:
    """Return a value as text without meaning in HTML or in the JavaScript templates that Gradio renders HTML with."""
    return value if isinstance(value, Markup) else Markup(escape(value).translate(GRADIO_SYNTAX))


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    finalize=safe,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _rendered(name: str, **values: object) -> str:
    return TEMPLATES.get_template(f"{name}.html").render(values).strip()


def spans(user_prompt: str, refined_prompt: str) -> list[tuple[str, bool]]:
    """Return the refined prompt in pieces, each with whether it is an added modifier.

    If an edit changed the user's own words, additions cannot be told apart: the whole prompt is one piece.
    """
    try:
        modifiers = modifiers_added(user_prompt, refined_prompt)
    except InputError:
        return [(refined_prompt, False)]
    end = len(own_words(user_prompt))
    pieces = [(refined_prompt[:end], False)]
    for modifier in modifiers:
        start = refined_prompt.index(modifier, end)
        pieces += [(refined_prompt[end:start], False), (modifier, True)]
        end = start + len(modifier)
    return [piece for piece in (*pieces, (refined_prompt[end:], False)) if piece[0]]


def marked_prompt(session: Session) -> str:
    """Return the refined prompt with its additions marked, or a hint before there is one."""
    is_empty = not session.refined_prompt.strip()
    pieces = () if is_empty else spans(session.user_prompt, session.refined_prompt)
    return _rendered("marked_prompt", pieces=pieces)


def about(loaded: str, subjects: Sequence[str] = ()) -> str:
    """Return the head of the page.

    Args:
        loaded: Names of the checkpoint and its parts.
        subjects: The subjects that the checkpoint knows; none if that is not known.
    """
    return _rendered("about", loaded=loaded, subjects=subjects)


def notice_line(notice: Notice | None) -> str:
    """Return a notice with its role for screen readers, or nothing."""
    return _rendered("notice", notice=notice)


def example_list(examples: Sequence[str]) -> str:
    """Return example prompts as buttons."""
    return _rendered("examples", examples=examples)


def choices(session: Session) -> str:
    """Return the alternatives as buttons, or nothing without a choice."""
    added = ["".join(text for text, _ in spans(session.user_prompt, one)[1:]) for one in session.alternatives]
    pairs = zip(session.alternatives, added, strict=True)
    rows = [(addition.lstrip(", ") or text, text == session.refined_prompt) for text, addition in pairs]
    return _rendered("choices", choices=rows)


def history_list(history: Sequence[Entry]) -> str:
    """Return the history as buttons, latest first."""
    return _rendered("history", history=history)


def pictures(board: Board | None) -> str:
    """Return the pairs of a board so far, with their scores."""
    return _rendered("pictures", board=board, large=LARGE)
