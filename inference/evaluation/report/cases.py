"""The prompts that a report shows with images: before and after, best and worst, and refiner by refiner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..analysis.results import Results, rows_of
from ..analysis.table import number
from ..settings import NONE
from .pictures import Album, Figure

IMAGES_OF_A_SIDE = 4
TYPICAL, EXTREME, STRIPS = 6, 3, 4
"""Number of prompts spread over all gains, at either end of them, and with all refiners."""


@dataclass(frozen=True)
class Card:
    """A prompt with its plain and its refined images."""

    user_prompt: str
    refined_prompts: Sequence[str]
    sides: Sequence[tuple[str, Sequence[Figure]]]
    gain: str
    tone: str
    """good, bad or ""."""
    scorer: str
    scores: Sequence[tuple[str, str]]
    """Every scorer with its mean, plain and refined."""


@dataclass(frozen=True)
class Cards:
    """A grid of cards."""

    macro: ClassVar[str] = "cards"
    cards: Sequence[Card]
    title: str = ""


@dataclass(frozen=True)
class Strip:
    """A prompt with one image per refiner, from the same noise."""

    macro: ClassVar[str] = "strip"
    user_prompt: str
    generator: str
    columns: Sequence[tuple[str, Figure, str]]
    """Refiner, image and refined prompt."""


class Cases:
    """Prompts ordered by a refiner's gain on a generator according to a scorer, with their pictures."""

    def __init__(
        self, results: Results, path: Path, album: Album, *, refiner: str, generator: str, scorer: str, decimals: int
    ) -> None:
        """path: results.parquet. decimals: of a score."""
        self.results, self.path, self.album = results, path, album
        self.refiner, self.generator, self.scorer, self.decimals = refiner, generator, scorer, decimals
        cells = results.cells
        self.gains = cells[generator, refiner].scores[scorer] - cells[generator, NONE].scores[scorer]
        measured = np.nonzero(~np.isnan(self.gains))[0]
        self.order: list[int] = measured[np.argsort(self.gains[measured], kind="stable")].tolist()
        """Indices of the prompts that have a gain, the lowest first."""

    def before_and_after(self, image_budget: int) -> list[Cards]:
        """Return cards of prompts spread evenly over all gains, the highest first."""
        count = min(TYPICAL, len(self.order), image_budget // (2 * IMAGES_OF_A_SIDE))
        spread = (np.arange(count) + 0.5) / max(1, count) * len(self.order)
        return self._cards([self.order[int(position)] for position in spread[::-1]], IMAGES_OF_A_SIDE)

    def extremes(self, image_budget: int) -> list[Cards]:
        """Return cards of the prompts that gain most, and of those that gain least."""
        count = min(EXTREME, len(self.order) // 2, image_budget // (2 * 2 * 2))
        most = self._cards(self.order[::-1][:count], 2, "Gained most")
        return most + self._cards(self.order[:count], 2, "Gained least")

    def strips(self, refiners: Sequence[str], generators: Sequence[str], image_budget: int) -> list[Strip]:
        """Return a few prompts with one image per refiner, from the same noise; the generators take turns."""
        count = min(STRIPS, len(self.order), image_budget // max(1, len(refiners)))
        spread = (np.arange(count) + 0.25) / max(1, count) * len(self.order)
        indices = [self.order[int(position)] for position in spread]
        rows = self._rows(indices)
        strips = []
        for turn, index in enumerate(indices):
            generator = generators[turn % len(generators)]
            drawn = [row for row in rows[index] if row["generator"] == generator]
            first = min(row["image_index"] for row in drawn)
            images = {row["refiner"]: row for row in drawn if row["image_index"] == first}
            columns = [
                (name, self.album.figure(images[name], self.scorer, self.decimals), images[name]["refined_prompt"])
                for name in refiners
                if name in images
            ]
            strips.append(Strip(self.results.prompts.texts[index], generator, columns))
        return strips

    def _rows(self, indices: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        ids = self.results.prompts.ids
        rows: dict[int, list[dict[str, Any]]] = {index: [] for index in indices}
        index_of = {int(ids[index]): index for index in indices}
        for row in rows_of(self.path, list(index_of)) if indices else []:
            rows[index_of[row["prompt_id"]]].append(row)
        return rows

    def _cards(self, indices: Sequence[int], images: int, title: str = "") -> list[Cards]:
        rows = self._rows(indices)
        cards = [self._card(index, rows[index], images) for index in indices]
        return [Cards(cards, title)] if cards else []

    def _card(self, index: int, rows: Sequence[dict[str, Any]], images: int) -> Card:
        sides = {
            refiner: sorted(
                (row for row in rows if (row["generator"], row["refiner"]) == (self.generator, refiner)),
                key=lambda row: row["image_index"],
            )[:images]
            for refiner in (NONE, self.refiner)
        }
        figures = {
            refiner: [self.album.figure(row, self.scorer, self.decimals) for row in side]
            for refiner, side in sides.items()
        }
        gain = self.gains[index]
        before, after = (self.results.cells[self.generator, name].scores for name in (NONE, self.refiner))
        return Card(
            user_prompt=self.results.prompts.texts[index],
            refined_prompts=list(dict.fromkeys(row["refined_prompt"] for row in sides[self.refiner])),
            sides=[("plain", figures[NONE]), (self.refiner, figures[self.refiner])],
            gain=number(gain, self.decimals, sign=True),
            tone="good" if gain > 0 else "bad" if gain < 0 else "",
            scorer=self.scorer,
            scores=[(scorer, _change(before[scorer][index], after[scorer][index])) for scorer in before],
        )


def _change(before: float, after: float) -> str:
    return " → ".join(number(None if np.isnan(value) else float(value), 2) for value in (before, after))
