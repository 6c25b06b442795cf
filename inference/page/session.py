"""What one browser has on its page, and what its buttons do with it: functions from a Session to the next one.

None of them raises an error of ours: it becomes the notice of the session, and all else in it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prip.control.styles import with_styles
from prip.errors import InputError, PripError
from prip.options import RefineOptions, check_whole
from prip.text.prompts import check_user_prompt

if TYPE_CHECKING:
    from prip.refiner import Refiner

MOST_REMEMBERED = 50
"""Entries of the history; the oldest go first."""
MOST_ALTERNATIVES = 6
MOST_IMAGES = 8


@dataclass(frozen=True)
class Notice:
    """One line to the user."""

    text: str
    is_error: bool = False


@dataclass(frozen=True)
class Form:
    """What stands in the page's fields when a button is pressed, as the browser sends it: a number may be None."""

    prompt: str | None
    refinement: bool = True
    """False is the switch that turns refinement off."""
    strength: float | None = 1.0
    styles: Sequence[str] = ()
    num_alternatives: float | None = 1
    banned_terms: str | None = ""
    """Separated by commas."""
    no_artists: bool = False
    temperature: float | None = 0.0
    seed: float | None = 0
    images: float | None = 2
    """Pairs to draw, with seeds from `seed` on."""

    def user_prompt(self) -> str:
        """Return the prompt, or raise InputError."""
        prompt = (self.prompt or "").strip()
        if not prompt:
            raise InputError("there is no prompt yet; type what you want to see, such as: a cat")
        return check_user_prompt(prompt)

    def options(self) -> RefineOptions:
        """Return what the fields ask of the refiner, or raise InputError."""
        if not self.refinement:
            return RefineOptions(strength=0.0)
        temperature = _given("temperature", self.temperature)
        strength = _given("strength", self.strength)
        terms = [term.strip() for term in (self.banned_terms or "").replace("\n", ",").split(",")]
        return RefineOptions(
            num_alternatives=_whole("alternatives", self.num_alternatives, 1, MOST_ALTERNATIVES),
            seed=_whole("seed", self.seed),
            temperature=temperature,
            banned_terms=[term for term in terms if term],
            styles=tuple(self.styles),
            no_artists=self.no_artists,
            strength=strength,
        )

    def seeds(self) -> list[int]:
        """Return the seeds of the images, or raise InputError."""
        first = _whole("seed", self.seed)
        return list(range(first, first + _whole("pictures of each prompt", self.images, 0, MOST_IMAGES)))


@dataclass(frozen=True)
class Entry:
    """One line of the history."""

    user_prompt: str
    refined_prompt: str


@dataclass(frozen=True)
class Session:
    """What one browser has on its page."""

    user_prompt: str = ""
    """The one that was refined last."""
    alternatives: tuple[str, ...] = ()
    """Refined prompts to choose from, the greedy one first."""
    refined_prompt: str = ""
    """The one that was chosen, and perhaps edited."""
    history: tuple[Entry, ...] = ()
    """The latest first."""
    notice: Notice | None = None


def refine(refiner: Refiner, session: Session, form: Form) -> Session:
    """Refine the form's prompt: its first alternative is chosen."""
    try:
        prompt, options = form.user_prompt(), form.options()
        [result] = refiner.refine_each([prompt], [options.seed], options)
    except PripError as error:
        return failed(session, error)
    texts = tuple(result.texts)
    notice = None
    if options.strength > 0:
        notice = _what_is_missing(refiner, with_styles(prompt, options.styles), texts, options)
    history = remembered(session.history, Entry(prompt, texts[0]))
    return Session(prompt, texts, texts[0], history, notice)


def choose(session: Session, place: int) -> Session:
    """Take the alternative at a place."""
    return replace(session, refined_prompt=session.alternatives[place], notice=None)


def edit(session: Session, text: str) -> Session:
    """Take what the user made of the refined prompt."""
    return replace(session, refined_prompt=text, notice=None)


def settle(session: Session) -> Session:
    """Check what is to be drawn, and remember it.

    An edited prompt comes into the history when it is drawn, what is there
    keeps its place.
    """
    try:
        text = session.refined_prompt.strip()
        if not text:
            raise InputError("the refined prompt is empty; refine your prompt, or type one there")
        check_user_prompt(text)
    except PripError as error:
        return failed(session, error)
    notice = None if session.notice and session.notice.is_error else session.notice
    user_prompt = session.user_prompt or text
    entry = Entry(user_prompt, text)
    history = session.history if entry in session.history else remembered(session.history, entry)
    return replace(session, user_prompt=user_prompt, refined_prompt=text, history=history, notice=notice)


def restore(session: Session, place: int) -> Session:
    """Take both prompts of an entry of the history."""
    entry = session.history[place]
    return Session(entry.user_prompt, (entry.refined_prompt,), entry.refined_prompt, session.history)


def failed(session: Session, error: Exception) -> Session:
    """Return the session with the error's words as its notice, and all else as it was."""
    text = str(error)
    return replace(session, notice=Notice(text[:1].upper() + text[1:] + ".", is_error=True))


def remembered(history: tuple[Entry, ...], entry: Entry) -> tuple[Entry, ...]:
    """Return the history with an entry first, and nowhere else."""
    return (entry, *(one for one in history if one != entry))[:MOST_REMEMBERED]


def history_to_json(history: tuple[Entry, ...]) -> list[list[str]]:
    """Return the history as the browser keeps it."""
    return [[entry.user_prompt, entry.refined_prompt] for entry in history]


def history_from_json(kept: Any) -> tuple[Entry, ...]:
    """Return the history that a browser has kept; what is no such list is none."""
    if not isinstance(kept, list):
        return ()
    pairs = [pair for pair in kept if isinstance(pair, list) and len(pair) == 2]
    return tuple(Entry(*pair) for pair in pairs if all(isinstance(text, str) for text in pair))[:MOST_REMEMBERED]


def _what_is_missing(refiner: Refiner, prompt: str, texts: Sequence[str], options: RefineOptions) -> Notice | None:
    """Return a notice where less was found than was asked for."""
    if not refiner.sampler.has_room([prompt], options)[0]:
        return Notice(f"Your prompt fills the {refiner.token_limit} tokens that are read: no room to add more.")
    if texts[0] == prompt:
        return Notice("Nothing was added at this strength and with these terms.")
    if len(texts) < options.num_alternatives:
        return Notice(f"No more than {len(texts)} different texts were found.")
    return None


def _given(name: str, value: float | None) -> float:
    if value is None:
        raise InputError(f"{name} must be a number, it is empty")
    return float(value)


def _whole(name: str, value: float | None, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number of the form, or raise InputError."""
    number = _given(name, value)
    whole = int(number) if number.is_integer() else number
    check_whole(name, whole, least)
    if most is not None and whole > most:
        raise InputError(f"{name} may be {most} at most, it is {whole}")
    return int(whole)
