"""What Gradio calls: sessions and fields in, what the page shows out. Nothing of Gradio's but its events is needed here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
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
        return shown(guarded(session, lambda: refine(self._refiner, session, Form(*fields))))

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

    def draw(self, session: Session, *fields: Any) -> Iterator[list[Any]]:
        """Draw what the session holds, pair by pair; where it holds an error, nothing."""
        assert self._easel is not None
        if _is_error(session):  # of the step before, which is being shown
            yield [gr.skip(), *shown(session)]
            return
        session = settle(session)
        try:
            seeds = Form(*fields).seeds()
            boards = (
                iter(()) if _is_error(session) else self._easel.draw(session.user_prompt, session.refined_prompt, seeds)
            )
            yield [gr.skip(), *shown(session)]
            for board in boards:
                yield [markup.pictures(board), *shown(session)]
        except Exception as error:
            yield [gr.skip(), *shown(told(session, error))]


def _is_error(session: Session) -> bool:
    return session.notice is not None and session.notice.is_error


def shown(session: Session) -> list[Any]:
    """Return what of a session is kept and shown, in the order of `Page`'s outputs."""
    return [
        session,
        history_to_json(session.history),
        markup.notice_line(session.notice),
        markup.marked_prompt(session),
        session.refined_prompt,
        markup.choices(session),
        markup.history_list(session.history),
    ]


def guarded(session: Session, make: Callable[[], Session]) -> Session:
    """Return what `make` makes, or the session with a notice where it fails."""
    try:
        return make()
    except Exception as error:
        return told(session, error)


def told(session: Session, error: Exception) -> Session:
    """Return the session with a notice of an error: in its own words where it is ours; another's goes to the log."""
    import torch

    if isinstance(error, PripError):
        return failed(session, error)
    logging.getLogger(__name__).error("%s", error, exc_info=error)
    if isinstance(error, torch.OutOfMemoryError):
        return failed(
            session, RuntimeError("the device has no memory left for this; ask for fewer or smaller pictures")
        )
    return failed(session, RuntimeError(UNFORESEEN))
