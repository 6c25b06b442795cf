"""Which prompts a report shows, and how: before and after, best and worst, refiner by refiner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.results import Results, rows_of
from ..analysis.table import number
from ..settings import NONE
from .markup import escaped, marked, signed
from .pictures import Album

Rows = list[dict[str, Any]]
IMAGES_OF_A_SIDE = 4
TYPICAL, EXTREME, STRIPS = 6, 3, 4
"""Prompts shown: spread over all gains, at either end of them, and with all refiners."""


class Cases:
    """Prompts in the order of what a refiner gains on a generator by a scorer, and their pictures."""

    def __init__(
        self, results: Results, path: Path, album: Album, refiner: str, generator: str, scorer: str, decimals: int
    ) -> None:
        """path: results.parquet. decimals: of a score."""
        self.results, self.path, self.album = results, path, album
        self.refiner, self.generator, self.scorer, self.decimals = refiner, generator, scorer, decimals
        cells = results.cells
        gains = cells[generator, refiner].scores[scorer] - cells[generator, NONE].scores[scorer]
        there = np.nonzero(~np.isnan(gains))[0]
        self.gains = gains
        self.order: list[int] = there[np.argsort(gains[there], kind="stable")].tolist()
        """Places of the prompts that have a gain, the lowest first."""

    def before_and_after(self, room: int) -> str:
        """Returns cards of prompts spread evenly over all gains, the highest first, with at most `room` images."""
        count = min(TYPICAL, len(self.order), room // (2 * IMAGES_OF_A_SIDE))
        spread = (np.arange(count) + 0.5) / max(1, count) * len(self.order)
        return self._cards([self.order[int(place)] for place in spread[::-1]], IMAGES_OF_A_SIDE)

    def extremes(self, room: int) -> tuple[str, str]:
        """Returns cards of the prompts that gain most and of those that gain least, with at most `room` images."""
        count = min(EXTREME, len(self.order) // 2, room // (2 * 2 * 2))
        return self._cards(self.order[::-1][:count], 2), self._cards(self.order[:count], 2)

    def strips(self, refiners: Sequence[str], generators: Sequence[str], room: int) -> str:
        """Returns a few prompts with one image of each refiner, from the same noise, with at most `room` images."""
        count = min(STRIPS, len(self.order), room // max(1, len(refiners)))
        spread = (np.arange(count) + 0.25) / max(1, count) * len(self.order)
        places = [self.order[int(place)] for place in spread]
        rows = self._rows(places)
        made = []
        for number_of_strip, place in enumerate(places):
            generator = generators[number_of_strip % len(generators)]
            own = [row for row in rows[place] if row["generator"] == generator]
            first = min(row["image_index"] for row in own)
            images = {row["refiner"]: row for row in own if row["image_index"] == first}
            figures = "".join(
                f"<li><b>{escaped(name)}</b>{self.album.figure(images[name], self.scorer, self.decimals)}"
                f'<p class="prompt">{marked(images[name]["user_prompt"], images[name]["refined_prompt"])}</p></li>'
                for name in refiners
                if name in images
            )
            text = self.results.prompts.texts[place]
            made.append(
                f'<article class="strip"><h3>{escaped(text)} <small>on {escaped(generator)}</small></h3>'
                f'<ul class="scroll" role="list" tabindex="0" aria-label="{escaped(text)}, all refiners">'
                f"{figures}</ul></article>"
            )
        return "".join(made)

    def _rows(self, places: Sequence[int]) -> dict[int, Rows]:
        ids = self.results.prompts.ids
        found: dict[int, Rows] = {place: [] for place in places}
        place_of = {int(ids[place]): place for place in places}
        for row in rows_of(self.path, list(place_of)) if places else []:
            found[place_of[row["prompt_id"]]].append(row)
        return found

    def _cards(self, places: Sequence[int], images: int) -> str:
        rows = self._rows(places)
        cards = []
        for place in places:
            sides = [
                sorted(
                    (row for row in rows[place] if (row["generator"], row["refiner"]) == (self.generator, refiner)),
                    key=lambda row: row["image_index"],
                )[:images]
                for refiner in (NONE, self.refiner)
            ]
            cards.append(self._card(place, *sides))
        return f'<div class="cards">{"".join(cards)}</div>' if cards else ""

    def _card(self, place: int, plain: Rows, refined: Rows) -> str:
        user_prompt = self.results.prompts.texts[place]
        said = list(dict.fromkeys(row["refined_prompt"] for row in refined))
        texts = "".join(f'<p class="prompt">{marked(user_prompt, text)}</p>' for text in said)
        gain = self.gains[place]
        tone = "good" if gain > 0 else "bad" if gain < 0 else ""
        return (
            f'<article class="card"><div class="sides">{self._side("plain", plain)}{self._side(self.refiner, refined)}'
            f'</div>{texts}<p class="gain {tone}">{signed(number(gain, self.decimals, sign=True))} '
            f"<small>{escaped(self.scorer)}</small></p>{self._scores(place)}</article>"
        )

    def _side(self, title: str, rows: Rows) -> str:
        figures = "".join(self.album.figure(row, self.scorer, self.decimals) for row in rows)
        return f'<div><h4>{escaped(title)}</h4><div class="tiles n{min(len(rows), 4)}">{figures}</div></div>'

    def _scores(self, place: int) -> str:
        """All scorers of a prompt, plain and refined."""
        before, after = (self.results.cells[self.generator, name].scores for name in (NONE, self.refiner))
        lines = "".join(
            f"<div><dt>{escaped(scorer)}</dt><dd>{_moved(before[scorer][place], after[scorer][place])}</dd></div>"
            for scorer in before
        )
        return f'<dl class="scores">{lines}</dl>'


def _moved(before: float, after: float) -> str:
    ends = (number(None if np.isnan(value) else float(value), 2) for value in (before, after))
    return signed(" → ".join(ends))
