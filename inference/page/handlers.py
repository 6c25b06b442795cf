"""What Gradio calls: sessions and fields in, what the page shows out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from prip.errors import PripError

from . import markup
from .session import (
    Form,
    Session,
    choose,
    edit,
    failed,
    history_from_json,
    history_to_json,
    refine,
    restore,
    settle,
)

if TYPE_CHECKING:
    from prip.refiner import Refiner

    from .pictures import Easel

EXAMPLES = ("a cat", "a rocket in winter", "a lantern at home", "a castle by the sea")

UNFORESEEN = "this did not work, and it is not your prompt's fault; the terminal of prip demo tells what happened"
NO_MEMORY = "the device has no memory left for this; close what else runs on it, or take a smaller generator"


class Handlers:
    """The handlers of one page. Each takes the session of a browser and returns it, with what is to be shown of it."""

    def __init__(self, refiner: Refiner, easel: Easel | None) -> None:
        self._refiner = refiner
        self._easel = easel

    def load(self, session: Session, kept: Any) -> tuple[Session, str]:
        """Take the history that the browser kept."""
        session = replace(session, history=history_from_json(kept))
        return session, markup.history_list(session.history)

    def refine(self, session: Session, *fields: Any) -> list[Any]:
        """Refine the prompt of the fields, which are those of `Form`, in its order."""
        try:
            return shown(refine(self._refiner, session, Form(*fields)))
        except Exception as error:
            return shown(told(session, error))

    def example(self, event: gr.EventData) -> str:
        """Return the example that was pressed."""
        return EXAMPLES[event.place]

    def edit(self, session: Session, text: str) -> tuple[Session, str]:
        """Take the refined prompt as it stands in its field."""
        session = edit(session, text)
        return session, markup.marked_prompt(session)

    def choose(self, session: Session, event: gr.EventData) -> list[Any]:
        """Take the alternative that was pressed."""
        return shown(choose(session, event.place))

    def restore(self, session: Session, event: gr.EventData) -> list[Any]:
        """Take both prompts of the entry of the history that was pressed."""
        session = restore(session, event.place)
        return [session.user_prompt, *shown(session)]

    def settle(self, session: Session) -> list[Any]:
        """Take what is to be drawn into the history; a notice of the step before stays."""
        return told_of(session if _is_error(session) else settle(session))

    def draw(self, session: Session, *fields: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the pictures of the session's prompts, pair by pair, and its notice; of one with an error, nothing.

        All else is left alone: who types while it draws loses nothing.
        """
        assert self._easel is not None
        if _is_error(session):
            yield gr.skip(), gr.skip()
            return
        try:
            seeds = Form(*fields).seeds()
            for board in self._easel.draw(session.user_prompt, session.refined_prompt, seeds):
                yield markup.pictures(board), markup.notice_line(session.notice)
        except Exception as error:
            yield gr.skip(), markup.notice_line(told(session, error).notice)


def _is_error(session: Session) -> bool:
    return session.notice is not None and session.notice.is_error


def told_of(session: Session) -> list[Any]:
    """Return a session, with its history as the browser keeps it, and its notice and history as they are shown."""
    return [
        session,
        history_to_json(session.history),
        markup.notice_line(session.notice),
        markup.history_list(session.history),
    ]


def shown(session: Session) -> list[Any]:
    """Return all that is shown of a session: `told_of` it, its refined prompt, marked and to edit, and what to choose
    from."""
    return [
        *told_of(session),
        markup.marked_prompt(session),
        session.refined_prompt,
        markup.choices(session),
    ]


def told(session: Session, error: Exception) -> Session:
    """Return the session with a notice of an error: in its own words where it is ours; another's goes to the log."""
    import torch

    if isinstance(error, PripError):
        return failed(session, error)
    logging.getLogger(__name__).error("%s", error, exc_info=error)
    if isinstance(error, torch.OutOfMemoryError):
        return failed(session, RuntimeError(NO_MEMORY))
    return failed(session, RuntimeError(UNFORESEEN))
