"""Gradio's event handlers, from the session and the fields to what the page shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from prip.errors import PripError

from . import markup
from .session import Form, Session, choose, edit, failed, history_from_json, history_to_json, refine, restore, settle

if TYPE_CHECKING:
    from prip.refiner import Refiner

    from .pictures import Easel

EXAMPLES = ("a cat", "a rocket in winter", "a lantern at home", "a castle by the sea")

UNFORESEEN = "an unexpected error occurred, not because of your prompt; see the terminal that runs prip demo"
NO_MEMORY = "out of memory; close other programs that use this device, or choose a smaller generator"


class Handlers:
    """Event handlers of one page. Each takes a browser's session and returns it with the outputs that change.

    Args:
        easel: Draws the pictures; None without a generator.
    """

    def __init__(self, refiner: Refiner, easel: Easel | None) -> None:
        self._refiner = refiner
        self._easel = easel

    def load(self, session: Session, stored: object) -> tuple[Session, str]:
        """Restore the history that the browser stored."""
        session = replace(session, history=history_from_json(stored))
        return session, markup.history_list(session.history)

    def clear(self, session: Session) -> tuple[Session, list[list[str]], str]:
        """Forget the history, here and in the browser."""
        return replace(session, history=()), [], markup.history_list(())

    def refine(self, session: Session, *fields: Any) -> list[object]:
        """Refine the prompt. `fields` are the values of `Form`, in order."""
        try:
            return all_outputs(refine(self._refiner, session, Form(*fields)))
        except Exception as error:
            return all_outputs(with_error(session, error))

    def example(self, event: gr.EventData) -> str:
        """Return the example that was pressed."""
        return EXAMPLES[event.index]

    def edit(self, session: Session, text: str) -> tuple[Session, str]:
        """Replace the refined prompt by its edited text."""
        session = edit(session, text)
        return session, markup.marked_prompt(session)

    def choose(self, session: Session, event: gr.EventData) -> list[object]:
        """Choose the alternative that was pressed."""
        return all_outputs(choose(session, event.index))

    def restore(self, session: Session, event: gr.EventData) -> list[object]:
        """Restore both prompts of the history entry that was pressed."""
        session = restore(session, event.index)
        return [session.user_prompt, *all_outputs(session)]

    def settle(self, session: Session) -> list[object]:
        """Add the prompts about to be drawn to the history. A notice of the previous step stays."""
        return status_outputs(session if _has_error(session) else settle(session))

    def draw(self, session: Session, *fields: Any) -> Iterator[tuple[object, object]]:
        """Yield the pictures, pair by pair, and the notice; nothing for a session with an error.

        No other output changes: what the user types meanwhile is not lost.
        """
        assert self._easel is not None
        if _has_error(session):
            yield gr.skip(), gr.skip()
            return
        try:
            seeds = Form(*fields).seeds()
            for board in self._easel.draw(session.user_prompt, session.refined_prompt, seeds):
                yield markup.pictures(board), markup.notice_line(session.notice)
        except Exception as error:
            yield gr.skip(), markup.notice_line(with_error(session, error).notice)


def _has_error(session: Session) -> bool:
    return session.notice is not None and session.notice.is_error


def status_outputs(session: Session) -> list[object]:
    """Return the session, its history for the browser to store, the notice and the history as shown."""
    history = history_to_json(session.history)
    return [session, history, markup.notice_line(session.notice), markup.history_list(session.history)]


def all_outputs(session: Session) -> list[object]:
    """Return `status_outputs`, then the refined prompt, marked and as editable text, and the alternatives."""
    marked, choices = markup.marked_prompt(session), markup.choices(session)
    return [*status_outputs(session), marked, session.refined_prompt, choices]


def with_error(session: Session, error: Exception) -> Session:
    """Return the session with an error as its notice. Errors other than PRIP's own are logged, not shown."""
    import torch

    if isinstance(error, PripError):
        return failed(session, error)
    logging.getLogger(__name__).error("%s", error, exc_info=error)
    return failed(session, RuntimeError(NO_MEMORY if isinstance(error, torch.OutOfMemoryError) else UNFORESEEN))
