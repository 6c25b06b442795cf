"""The page's images: drawn pair by pair, scored, and cached as files."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from prip.pictures import as_picture

if TYPE_CHECKING:
    import torch

    from ..comparison.workbench import Workbench

KEPT = 400
"""Most image files in the cache."""


@dataclass(frozen=True)
class Picture:
    """An image file, with each reward's score for the user prompt."""

    path: Path
    width: int
    height: int
    scores: Mapping[str, float]
    """By reward; empty for an image that the generator's safety checker blackened"""


@dataclass(frozen=True)
class Pair:
    """The pictures of one seed: of the user prompt and, if it differs, of the refined one."""

    seed: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Board:
    """The pictures of two prompts while they are drawn: `pairs` so far, of `wanted`."""

    user_prompt: str
    refined_prompt: str
    wanted: int
    pairs: tuple[Pair, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts to draw: one if refinement changed nothing."""
        return tuple(dict.fromkeys((self.user_prompt, self.refined_prompt)))

    def means(self) -> dict[str, list[float]]:
        """Return each reward's mean scores over the pairs so far that could be scored, one per text."""
        scored = [pair for pair in self.pairs if all(picture.scores for picture in pair.pictures)]
        columns = list(zip(*(pair.pictures for pair in scored), strict=True))
        names = columns[0][0].scores if columns else ()
        return {
            name: [sum(picture.scores[name] for picture in column) / len(column) for column in columns]
            for name in names
        }


class Easel:
    """Draws for every open page, one picture at a time, and caches the images as files in one folder.

    Args:
        bench: With a generator.
    """

    def __init__(self, bench: Workbench, folder: Path) -> None:
        self._bench = bench
        self._folder = folder
        self._drawing = Lock()  # a cancelled draw still finishes its current image, while the next one starts
        self._kept: OrderedDict[tuple[str, str, int], Picture] = OrderedDict()

    def draw(self, user_prompt: str, refined_prompt: str, seeds: Sequence[int]) -> Iterator[Board]:
        """Yield the board before the first pair and after each."""
        board = Board(user_prompt, refined_prompt, len(seeds))
        yield board
        for seed in seeds:
            with self._drawing:
                pictures = tuple(self._picture(user_prompt, text, seed) for text in board.texts)
            board = Board(user_prompt, refined_prompt, len(seeds), (*board.pairs, Pair(seed, pictures)))
            yield board

    def _picture(self, user_prompt: str, text: str, seed: int) -> Picture:
        key = (user_prompt, text, seed)
        if key not in self._kept:
            images, scores = self._bench.draw([user_prompt], [text], [seed])
            known = {name: values[0] for name, values in scores.items() if not math.isnan(values[0])}
            self._kept[key] = save(images[0], known, self._folder)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)[1].path.unlink(missing_ok=True)
        self._kept.move_to_end(key)
        return self._kept[key]


def save(image: torch.Tensor, scores: Mapping[str, float], folder: Path) -> Picture:
    """Write an image, uint8 `(3, height, width)`, as a PNG with an unguessable name."""
    path = folder / f"{uuid4().hex}.png"
    pixels = as_picture(image, "demo")
    pixels.save(path)
    return Picture(path, pixels.width, pixels.height, scores)
