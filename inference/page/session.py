"""The state of one browser's page, and what each button does: functions from one Session to the next.

None of them raises a PripError: it becomes the session's notice, and everything else stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prip.control.styles import with_styles
from prip.errors import InputError, PripError
from prip.options import Bounds, RefineOptions, check_number
from prip.text.prompts import check_user_prompt

if TYPE_CHECKING:
    from prip.refiner import Refiner

MOST_REMEMBERED = 50
"""Most entries of the history."""
MOST_ALTERNATIVES = 6
MOST_IMAGES = 8
DEFAULTS = RefineOptions()


@dataclass(frozen=True)
class Notice:
    """A line shown to the user."""

    text: str
    is_error: bool = False


@dataclass(frozen=True)
class Form:
    """Values of the page's fields as the browser sends them: the number of an empty field is None."""

    prompt: str | None
    refinement: bool = True
    """False keeps the prompt as it is."""
    strength: float | None = DEFAULTS.strength
    styles: Sequence[str] = DEFAULTS.styles
    num_alternatives: float | None = DEFAULTS.num_alternatives
    banned_terms: str | None = ""
    """Separated by commas."""
    no_artists: bool = DEFAULTS.no_artists
    temperature: float | None = DEFAULTS.temperature
    seed: float | None = DEFAULTS.seed
    images: float | None = 2
    """Pairs to draw. Their seeds count up from `seed`."""

    def user_prompt(self) -> str:
        """Return the prompt. Raises InputError for an invalid one."""
        prompt = (self.prompt or "").strip()
        if not prompt:
            raise InputError("there is no prompt yet; type what you want to see, for example: a cat")
        return check_user_prompt(prompt)

    def options(self) -> RefineOptions:
        """Return the options for `refine`. Raises InputError for an invalid one."""
        if not self.refinement:
            return RefineOptions(strength=0.0)
        terms = [term.strip() for term in (self.banned_terms or "").replace("\n", ",").split(",")]
        return RefineOptions(
            num_alternatives=_whole("alternatives", self.num_alternatives, Bounds(1, MOST_ALTERNATIVES)),
            seed=_whole("seed", self.seed),
            temperature=_number("temperature", self.temperature),
            banned_terms=[term for term in terms if term],
            styles=tuple(self.styles),
            no_artists=self.no_artists,
            strength=_number("strength", self.strength),
        )

    def seeds(self) -> list[int]:
        """Return the seeds of the images. Raises InputError for an invalid number."""
        first = _whole("seed", self.seed)
        count = _whole("pictures of each prompt", self.images, Bounds(0, MOST_IMAGES))
        return list(range(first, first + count))


@dataclass(frozen=True)
class Entry:
    """An entry of the history."""

    user_prompt: str
    refined_prompt: str


@dataclass(frozen=True)
class Session:
    """The state of one browser's page."""

    user_prompt: str = ""
    """The prompt refined last."""
    alternatives: tuple[str, ...] = ()
    """Refined prompts to choose from, the greedy one first."""
    refined_prompt: str = ""
    """The chosen alternative, possibly edited."""
    history: tuple[Entry, ...] = ()
    """Latest first."""
    notice: Notice | None = None


def refine(refiner: Refiner, session: Session, form: Form) -> Session:
    """Refine the form's prompt and choose its first alternative."""
    try:
        prompt, options = form.user_prompt(), form.options()
        [result] = refiner.refine_each([prompt], [options.seed], options)
    except PripError as error:
        return failed(session, error)
    texts = tuple(result.texts)
    notice = None
    if options.strength > 0:
        notice = _shortcoming(refiner, with_styles(prompt, options.styles), texts, options)
    history = remembered(session.history, Entry(prompt, texts[0]))
    return Session(prompt, texts, texts[0], history, notice)


def choose(session: Session, index: int) -> Session:
    """Choose an alternative."""
    return replace(session, refined_prompt=session.alternatives[index], notice=None)


def edit(session: Session, text: str) -> Session:
    """Replace the refined prompt by the user's edit."""
    return replace(session, refined_prompt=text, notice=None)


def settle(session: Session) -> Session:
    """Check the prompts to be drawn and add them to the history, unless they are in it."""
    try:
        text = session.refined_prompt.strip()
        if not text:
            raise InputError("the refined prompt is empty; refine your prompt or type one there")
        check_user_prompt(text)
    except PripError as error:
        return failed(session, error)
    notice = None if session.notice and session.notice.is_error else session.notice
    user_prompt = session.user_prompt or text
    entry = Entry(user_prompt, text)
    history = session.history if entry in session.history else remembered(session.history, entry)
    return replace(session, user_prompt=user_prompt, refined_prompt=text, history=history, notice=notice)


def restore(session: Session, index: int) -> Session:
    """Restore both prompts of an entry of the history."""
    entry = session.history[index]
    return Session(entry.user_prompt, (entry.refined_prompt,), entry.refined_prompt, session.history)


def failed(session: Session, error: Exception) -> Session:
    """Return the session with an error as its notice."""
    text = str(error)
    return replace(session, notice=Notice(text[:1].upper() + text[1:] + ".", is_error=True))


def remembered(history: tuple[Entry, ...], entry: Entry) -> tuple[Entry, ...]:
    """Return the history with an entry moved or added to its start."""
    return (entry, *(other for other in history if other != entry))[:MOST_REMEMBERED]


def history_to_json(history: tuple[Entry, ...]) -> list[list[str]]:
    """Return the history as the browser stores it."""
    return [[entry.user_prompt, entry.refined_prompt] for entry in history]


def history_from_json(stored: object) -> tuple[Entry, ...]:
    """Return a history stored by the browser, without anything that is not an entry."""
    if not isinstance(stored, list):
        return ()
    pairs = [pair for pair in stored if isinstance(pair, list) and len(pair) == 2]
    return tuple(Entry(*pair) for pair in pairs if all(isinstance(text, str) for text in pair))[:MOST_REMEMBERED]


def _shortcoming(refiner: Refiner, prompt: str, texts: Sequence[str], options: RefineOptions) -> Notice | None:
    """Return a notice if refining gave less than the form asked for."""
    if not refiner.sampler.has_room([prompt], options)[0]:
        return Notice(
            f"Your prompt fills the {refiner.token_limit} tokens that the generator reads; nothing more fits."
        )
    if texts[0] == prompt:
        return Notice("Nothing was added with this strength and these terms.")
    if len(texts) < options.num_alternatives:
        return Notice(f"There are only {len(texts)} different texts.")
    return None


def _number(name: str, value: float | None) -> float:
    if value is None:
        raise InputError(f"{name}: expected a number, got an empty field")
    return float(value)


def _whole(name: str, value: float | None, bounds: Bounds | None = None) -> int:
    number = _number(name, value)
    whole = int(number) if number.is_integer() else number
    check_number(name, whole, bounds or Bounds(), whole=True)
    return int(whole)
