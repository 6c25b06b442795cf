"""The sections of a report as data; the templates page.html and blocks.html render them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..analysis.curves import ITERATION
from ..analysis.people import people_tables
from ..analysis.results import Results, failed_rows
from ..analysis.summary import ALL, main_refiner, main_scorer
from ..analysis.table import Cell, Column, Table
from ..analysis.tables import categories_of, comparison_tables, decimals_of, rows_of, score_tables
from ..settings import NONE
from . import plots
from .cases import Cards, Cases, Strip
from .pictures import Album

FAILURES = 50
"""Failed images that a page lists."""
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Plots:
    """Plots side by side, as (title, SVG)."""

    macro: ClassVar[str] = "plots"
    panels: Sequence[tuple[str, str]]
    pairs: bool = False


@dataclass(frozen=True)
class Tables:
    """Tables one below the other, or each in a fold of which the first may be open."""

    macro: ClassVar[str] = "tables"
    name: str
    """Start of the tables' ids."""
    tables: Sequence[Table]
    folded: bool = False
    open: bool = True


@dataclass(frozen=True)
class Settings:
    """Values by name, and texts in folds."""

    macro: ClassVar[str] = "settings"
    values: Sequence[tuple[str, object]]
    folds: Sequence[tuple[str, str]]


Block = Plots | Tables | Settings | Cards | Strip


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and an introduction."""

    name: str
    """Its id."""
    link: str
    """Its name in the page's navigation."""
    title: str
    lead: str
    blocks: Sequence[Block]


def all_sections(summary: Record, results: Results, path: Path, album: Album, image_limit: int) -> list[Section]:
    """Return the sections that have content. The arguments are those of `report_page`; `album` embeds the images."""
    images = _image_sections(summary, results, path, album, image_limit)
    sections = [
        Section(
            "people",
            "People",
            "Human evaluation",
            "Annotators saw the user prompt and the images without knowing which refiner they came from.",
            _tables("people", people_tables(summary.get("people"))),
        ),
        *images[:1],
        Section(
            "refiners",
            "Refiners",
            "Gain of each refiner",
            "Mean gain over the plain prompt by each scorer, with 95 % intervals; the line at 0 is the plain prompt.",
            _gain_plots(summary),
        ),
        Section(
            "scores",
            "Scores",
            "Scores and their costs",
            "Rewards that the refiner was trained against, judges that took no part in training, and next to them "
            "fidelity, diversity and length, which show whether a gain comes from drift or collapse.",
            [Tables("scores", score_tables(summary))],
        ),
        Section(
            "prompts",
            "Prompt by prompt",
            "Prompt by prompt",
            "Each point is a user prompt: its plain score on the x axis, its refined score on the y axis. Above the "
            "diagonal, refinement helped.",
            _prompt_plots(summary, results),
        ),
        Section(
            "curves",
            "Over RL",
            "Over reinforcement learning",
            "If a reward rises while a held-out judge falls, the policy is hacking the reward.",
            _curve_plots(summary["curves"]),
        ),
        *images[1:],
        Section(
            "tests",
            "Tests",
            "Tests and further tables",
            "Differences with intervals, four p-values and shares of prompts, then categories and other results.",
            [Tables("tests", comparison_tables(summary), folded=True)],
        ),
        *_failures(summary["about"], path),
        Section("settings", "Settings", "Settings", "What was measured, and how.", [_settings(summary["about"])]),
    ]
    return [section for section in sections if any(not isinstance(b, Tables) or b.tables for b in section.blocks)]


def _tables(name: str, tables: Sequence[Table]) -> list[Block]:
    return [Tables(name, tables)] if tables else []


def _image_sections(summary: Record, results: Results, path: Path, album: Album, limit: int) -> list[Section]:
    """Return the sections with images: half of them before and after, a quarter each for strips and extremes."""
    about, refiner = summary["about"], main_refiner(summary["about"])
    generator, scorer = next(iter(about["generators"])), main_scorer(about)
    if refiner is None or not {(generator, refiner), (generator, NONE)} <= set(results.cells):
        return []
    decimals = min(2, decimals_of(rows_of(summary, generator, scorer)))
    cases = Cases(results, path, album, refiner=refiner, generator=generator, scorer=scorer, decimals=decimals)
    return [
        Section(
            "before-and-after",
            "Before and after",
            "Before and after",
            f"The plain prompt and {refiner} on {generator}, from the same noise. The prompts are not picked by hand: "
            "they are spread evenly over all gains, the highest first. Additions are highlighted; the scores are "
            f"{scorer}.",
            cases.before_and_after(limit // 2),
        ),
        Section(
            "strips",
            "Side by side",
            "Side by side",
            f"One prompt and one noise per row, with all refiners. The scores are {scorer}.",
            cases.strips(list(about["refiners"]), list(about["generators"]), limit // 4),
        ),
        Section(
            "extremes",
            "Best and worst",
            "Best and worst cases",
            f"The prompts for which {refiner} gains most and least on {generator}, by {scorer}.",
            cases.extremes(limit // 4),
        ),
    ]


def _gain_plots(summary: Record) -> list[Block]:
    about, panels = summary["about"], []
    for scorer, entry in about["scorers"].items():
        series = {
            generator: {row["refiner"]: _interval(row) for row in rows_of(summary, generator, scorer)}
            for generator in about["generators"]
        }
        refiners = [name for name in about["refiners"] if any(gains.get(name) for gains in series.values())]
        if refiners:
            values = {generator: [gains.get(name) for name in refiners] for generator, gains in series.items()}
            title = f"{scorer} ({entry['role']})"
            panels.append((title, plots.dots(refiners, values, "gain", f"Gain by {title}")))
    return [Plots(panels)] if panels else []


def _prompt_plots(summary: Record, results: Results) -> list[Block]:
    about, refiner, scorer = summary["about"], main_refiner(summary["about"]), main_scorer(summary["about"])
    panels = []
    for generator in about["generators"]:
        before, after = results.cells.get((generator, NONE)), results.cells.get((generator, refiner or ""))
        if before is not None and after is not None:
            title = f"{scorer} of each prompt on {generator}"
            labels = (f"plain, {scorer}", f"{refiner}, {scorer}")
            svg = plots.before_and_after(before.scores[scorer], after.scores[scorer], labels, title)
            panels.append((title, svg))
    names = [*categories_of(summary), ALL]
    if panels and len(names) > 1:
        series: dict[str, list[plots.Interval | None]] = {}
        for generator in about["generators"]:
            rows = {name: rows_of(summary, generator, scorer, name) for name in names}
            gains = {name: [_interval(row) for row in rows[name] if row["refiner"] == refiner] for name in names}
            series[generator] = [next(iter(gains[name]), None) for name in names]
        title = f"Gain of {refiner} by category"
        panels.append((title, plots.dots(names, series, f"gain in {scorer}", title)))
    return [Plots(panels)] if panels else []


def _curve_plots(curves: Record | None) -> list[Block]:
    """Return a plot of each series over iterations, and over KL where that is known."""
    panels = []
    for axis in (ITERATION, "kl"):
        for name in [name for name in curves or {} if name not in (ITERATION, "kl")]:
            x, y = (curves or {}).get(axis), (curves or {})[name]
            if x is not None and any(a is not None and b is not None for a, b in zip(x, y, strict=True)):
                label = "iterations of RL" if axis == ITERATION else "KL to the warm-up, nats per token"
                title = f"{name} over {'iterations' if axis == ITERATION else 'KL'}"
                panels.append((title, plots.curve(x, y, (label, name), title)))
    return [Plots(panels, pairs=len(panels) in (2, 4))] if panels else []


def _interval(row: Record) -> plots.Interval | None:
    if row["difference"] is None:
        return None
    return row["difference"], row["difference_low"], row["difference_high"]


def _failures(about: Record, path: Path) -> list[Section]:
    count = about["failed_images"]
    if not count:
        return []
    rows = failed_rows(path, FAILURES)
    names = ("user_prompt", "refiner", "generator", "seed", "error")
    table = Table(
        "Failed images",
        tuple(Column(name.replace("_", " "), words=True) for name in names),
        tuple(tuple(Cell(str(row[name])) for name in names) for row in rows),
    )
    lead = f"{count:,} of {about['images']:,} images failed; their scores are left out."
    more = f" The first {len(rows)} are listed." if len(rows) < count else ""
    block = Tables("failed", [table], folded=True, open=False)
    return [Section("failures", "Failures", "Failed images", lead + more, [block])]


def _settings(about: Record) -> Settings:
    folds = {name: value for name, value in about.items() if isinstance(value, Mapping)}
    texts = [
        (name, json.dumps(value, indent=2, ensure_ascii=False, default=str)) for name, value in folds.items() if value
    ]
    values = [(name.replace("_", " "), value) for name, value in about.items() if name not in folds]
    return Settings(values, texts)
