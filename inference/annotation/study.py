"""A study: the questions about an evaluation, and each annotator's progress through them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .answers import AnswerLog
from .blinding import check_annotator, order_for, sides_for, token, without_descriptions
from .items import Item, Picture, Sample, image_path

PRELOADED = 3
"""Number of questions for which the page preloads images."""

VIEWS = 100
"""Number of annotators' views that are cached; others are rebuilt on demand."""


@dataclass(frozen=True)
class View:
    """The questions as one annotator sees them; tokens stand for questions and images."""

    annotator: str
    items: dict[str, Item]
    """Questions by token, in the annotator's order."""
    sides: dict[str, tuple[Picture, ...]]
    """Pictures from left to right, by token of the question."""
    images: dict[str, tuple[str, ...]]
    """Tokens of the images from left to right, by token of the question."""
    pictures: dict[str, Picture]
    """Pictures by token of the image."""


class Study:
    """The server's state; what it returns reveals no refiner, score or address to annotators."""

    def __init__(self, images: Path, task: str, sample: Sample, seed: int, log: AnswerLog) -> None:
        self.images = images
        self.task = task
        self.items = sample.items
        self.keys = {item.key for item in sample.items}
        self.seed = seed
        self.log = log
        self._views: OrderedDict[str, View] = OrderedDict()

    def view(self, annotator: str) -> View:
        """Return an annotator's view. Raises InputError for an invalid name."""
        name = check_annotator(annotator)
        view = self._views.get(name)
        if view is None:
            view = self._make_view(name)
            self._views[name] = view
            while len(self._views) > VIEWS:
                self._views.popitem(last=False)
        return view

    def state(self, annotator: str) -> dict[str, Any]:
        """Return an annotator's progress: the open question, and the images of the next ones."""
        view = self.view(annotator)
        done = set(self.log.answered(view.annotator, self.task, self.keys))
        open_tokens = [name for name, item in view.items.items() if item.key not in done]
        current = None
        if open_tokens:
            name = open_tokens[0]
            prompt = view.items[name].user_prompt
            current = {"item": name, "user_prompt": prompt, "images": view.images[name]}
        return {
            "annotator": view.annotator,
            "task": self.task,
            "total": len(self.items),
            "answered": len(self.items) - len(open_tokens),
            "current": current,
            "next": [view.images[name] for name in open_tokens[1 : 1 + PRELOADED]],
        }

    def answer(self, annotator: str, item: str, answer: str, seconds: float, request: str) -> bool:
        """Write an answer to disk; return whether it counts (see AnswerLog.add), False for an unknown question."""
        view = self.view(annotator)
        if item not in view.items:
            return False
        return self.log.add(request, view.annotator, view.items[item], view.sides[item], answer, seconds)

    def undo(self, annotator: str, answered: int, request: str) -> bool:
        """Undo the annotator's latest answer; return whether there was one (see AnswerLog.undo)."""
        return self.log.undo(request, self.view(annotator).annotator, self.task, self.keys, answered)

    def image(self, annotator: str, name: str) -> bytes | None:
        """Return the PNG of an image token, or None when the annotator has no such image."""
        picture = self.view(annotator).pictures.get(name)
        if picture is None:
            return None
        return without_descriptions(image_path(self.images, picture.image).read_bytes())

    def _make_view(self, annotator: str) -> View:
        items: dict[str, Item] = {}
        sides: dict[str, tuple[Picture, ...]] = {}
        images: dict[str, tuple[str, ...]] = {}
        pictures: dict[str, Picture] = {}
        for item in order_for(self.items, self.seed, annotator):
            name = token(self.log.secret, "item", annotator, item.key)
            shown = sides_for(item, self.seed, annotator)
            names = tuple(token(self.log.secret, "image", annotator, item.key, side) for side in range(len(shown)))
            items[name], sides[name], images[name] = item, shown, names
            pictures.update(zip(names, shown, strict=True))
        return View(annotator, items, sides, images, pictures)
