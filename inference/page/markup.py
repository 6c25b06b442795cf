"""The page's own HTML: the refined prompt with its marks, notices, pictures with scores, examples and history."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from prip.errors import InputError
from prip.text.prompts import modifiers_added, own_words

from .pictures import Board, Pair, Picture
from .session import Entry, Notice, Session

CAPTIONS = ("Your prompt", "Refined")
LARGE = 256
"""Images with a side above this are shown smooth and open at full size; smaller ones keep their pixels crisp."""


def safe(text: str) -> str:
    """Return text that means nothing as HTML, nor to the templates through which Gradio puts it."""
    return escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`\\"})


def marked_prompt(session: Session) -> str:
    """Return the refined prompt with all that was added marked; before there is one, what will stand here."""
    if not session.refined_prompt.strip():
        return '<p class="marked waiting">Press Refine: your words stay, and what is added is marked.</p>'
    html = "".join(
        f"<ins>{safe(text)}</ins>" if added else safe(text)
        for text, added in spans(session.user_prompt, session.refined_prompt)
    )
    return f'<p class="marked">{html}</p>'


def spans(user_prompt: str, refined_prompt: str) -> list[tuple[str, bool]]:
    """Return the refined prompt in pieces, each with whether it is a modifier that was added.

    Where an edit changed the user's own words at its start, nothing can be told apart: it is one piece.
    """
    try:
        modifiers = modifiers_added(user_prompt, refined_prompt)
    except InputError:
        return [(refined_prompt, False)]
    place = len(own_words(user_prompt))
    pieces = [(refined_prompt[:place], False)]
    for modifier in modifiers:
        start = refined_prompt.index(modifier, place)
        pieces += [(refined_prompt[place:start], False), (modifier, True)]
        place = start + len(modifier)
    return [piece for piece in (*pieces, (refined_prompt[place:], False)) if piece[0]]


def notice_line(notice: Notice | None) -> str:
    """Return a notice as screen readers speak it at once, errors before all else."""
    if notice is None:
        return ""
    kind, role = ("error", "alert") if notice.is_error else ("hint", "status")
    return f'<p class="notice {kind}" role="{role}">{safe(notice.text)}</p>'


def button_list(texts: Sequence[str], label: str) -> str:
    """Return buttons that tell their place when pressed (`layout.PRESSED`)."""
    buttons = (f'<li><button type="button" data-place="{i}">{safe(text)}</button></li>' for i, text in enumerate(texts))
    return f'<ul class="chips" aria-label="{safe(label)}">{"".join(buttons)}</ul>'


def choices(session: Session) -> str:
    """Return the alternatives as buttons, the chosen one pressed; nothing where there is no choice."""
    if len(session.alternatives) < 2:
        return ""
    rows = []
    for place, text in enumerate(session.alternatives):
        pressed = "true" if text == session.refined_prompt else "false"
        added = "".join(piece for piece, _ in spans(session.user_prompt, text)[1:]).lstrip(", ") or text
        rows.append(
            f'<li><button type="button" data-place="{place}" aria-pressed="{pressed}">{safe(added)}</button></li>'
        )
    return f'<h3>Alternatives</h3><ol class="choices" aria-label="Alternatives">{"".join(rows)}</ol>'


def history_list(history: Sequence[Entry]) -> str:
    """Return the history as buttons, the latest first."""
    if not history:
        return '<p class="quiet">Prompts that you refine are listed here; press one to have it back.</p>'
    rows = (
        f'<li><button type="button" data-place="{place}"><b>{safe(entry.user_prompt)}</b>'
        f"<span>{safe(entry.refined_prompt)}</span></button></li>"
        for place, entry in enumerate(history)
    )
    return f'<ol class="history" aria-label="Earlier prompts, the latest first">{"".join(rows)}</ol>'


def pictures(board: Board | None) -> str:
    """Return the pairs of a board, empty frames for those to come, and the means of the scores."""
    if board is None or not board.wanted:
        return '<p class="quiet">Pictures of both prompts come here, from the same seeds.</p>'
    done, wanted = len(board.pairs), board.wanted
    pairs = [_pair(board, pair) for pair in board.pairs]
    pairs += ['<li class="pair">' + '<div class="frame"></div>' * len(board.texts) + "</li>"] * (wanted - done)
    if done < wanted:
        progress = (
            f'<p class="progress" role="status"><span>Drawing {done + 1} of {wanted} …</span>'
            f'<progress max="{wanted}" value="{done}"></progress></p>'
        )
    else:
        progress = f'<p class="spoken" role="status">{wanted} drawn</p>'
    single = " single" if len(board.texts) == 1 else ""
    return f'{progress}{_table(board)}<ul class="pairs{single}">{"".join(pairs)}</ul>'


def _pair(board: Board, pair: Pair) -> str:
    figures = []
    for place, (text, picture) in enumerate(zip(board.texts, pair.pictures, strict=True)):
        before = pair.pictures[0] if place else None
        figures.append(
            f"<figure>{_image(picture, text, pair.seed)}<figcaption><span>{CAPTIONS[place]}</span>"
            f"{_scores(picture, before)}</figcaption></figure>"
        )
    return f'<li class="pair" aria-label="seed {pair.seed}">{"".join(figures)}</li>'


def _image(picture: Picture, text: str, seed: int) -> str:
    address = f"gradio_api/file={picture.path}"
    large = max(picture.width, picture.height) > LARGE
    image = (
        f'<img src="{safe(address)}" alt="{safe(text)}, seed {seed}" width="{picture.width}" height="{picture.height}"'
        f' class="{"smooth" if large else "crisp"}">'
    )
    return f'<a href="{safe(address)}" target="_blank">{image}</a>' if large else image


def _scores(picture: Picture, before: Picture | None) -> str:
    rows = (
        f"<dt>{safe(name)}</dt><dd>{_better(before.scores[name] if before else None, score)}{score:.2f}</dd>"
        for name, score in picture.scores.items()
    )
    return f"<dl>{''.join(rows)}</dl>" if picture.scores else ""


def _better(before: float | None, score: float) -> str:
    """Return an arrow where a score is above the plain picture's, with words for who cannot see it."""
    return '<b><span class="spoken">better: </span>▲</b> ' if before is not None and score > before else ""


def _table(board: Board) -> str:
    means = board.means()
    if not means or len(board.texts) == 1:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{safe(name)}</th><td>{plain:.2f}</td><td>{refined:.2f}</td>'
        f'<td class="gain">{"▼=▲"[1 + (refined > plain) - (refined < plain)]} {refined - plain:+.2f}</td></tr>'
        for name, (plain, refined) in means.items()
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Mean score", *CAPTIONS, "Gain"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
