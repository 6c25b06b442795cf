"""The sections of a report, each with what it says of itself; one without content is empty."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..analysis.curves import ITERATION
from ..analysis.people import people_tables
from ..analysis.results import Results, failed_rows
from ..analysis.summary import ALL, main_refiner, main_scorer
from ..analysis.table import Cell, Column, Table
from ..analysis.tables import categories_of, comparison_tables, decimals_of, rows_of, score_tables
from ..settings import NONE
from . import plots
from .cases import Cases
from .markup import escaped, fold, section, table_html
from .pictures import Album

FAILURES = 50
"""Failed images that a page lists."""
Record = Mapping[str, Any]


def all_sections(summary: Record, results: Results, path: Path, album: Album, image_limit: int) -> dict[str, str]:
    """Returns the HTML of the sections by their names. The arguments are those of `report_page`; the album shows the
    images."""
    about = summary["about"]
    return {
        **_pictures(summary, results, path, album, image_limit),
        "refiners": section(
            "refiners",
            "How far each refiner gets",
            "Mean gain over the plain prompt by each scorer, with 95 % intervals; the line at 0 is the plain prompt.",
            _gain_plots(summary),
        ),
        "scores": section(
            "scores",
            "Scores, and what they cost",
            "Rewards that the refiner was trained against, judges that it never met, and beside them fidelity, "
            "diversity and length: a gain that is bought by drift or collapse shows here.",
            _tables("scores", score_tables(summary)),
        ),
        "people": section(
            "people",
            "What people say",
            "Annotators saw the user prompt and the images, and did not know whose they were.",
            _tables("people", people_tables(summary.get("people"))),
        ),
        "prompts": section(
            "prompts",
            "Prompt by prompt",
            "Each point is a user prompt: plain to the right, refined upwards. Above the diagonal, refinement helped.",
            _prompt_plots(summary, results),
        ),
        "curves": section(
            "curves",
            "Over reinforcement learning",
            "A reward that rises while a held-out judge falls is being hacked.",
            _curve_plots(summary["curves"]),
        ),
        "tests": section(
            "tests",
            "Tests and further tables",
            "Differences with intervals, four p-values and shares of prompts; then categories and what else was found.",
            _folded_tables("tests", comparison_tables(summary)),
        ),
        "failures": _failures(about, path),
        "settings": section("settings", "Settings", "What was measured, and how.", _settings(about)),
    }


def _tables(name: str, tables: Iterable[Table]) -> str:
    """The tables one below the other, each with an id that begins with the section's name."""
    return "".join(table_html(table, f"{name}-{place}") for place, table in enumerate(tables))


def _folded_tables(name: str, tables: Iterable[Table]) -> str:
    """The tables in folds, of which the first is open."""
    return "".join(
        fold(table.title, table_html(table, f"{name}-{place}", named=False), opened=place == 0)
        for place, table in enumerate(tables)
    )


def _pictures(summary: Record, results: Results, path: Path, album: Album, limit: int) -> dict[str, str]:
    """The sections that show images: half of them before and after, a quarter each for refiners and for extremes."""
    about, refiner = summary["about"], main_refiner(summary["about"])
    generator, scorer = next(iter(about["generators"])), main_scorer(about)
    if refiner is None or not {(generator, refiner), (generator, NONE)} <= set(results.cells):
        return {}
    decimals = decimals_of(rows_of(summary, generator, scorer))
    cases = Cases(results, path, album, refiner, generator, scorer, min(decimals, 2))
    best, worst = cases.extremes(limit // 4)
    extremes = f"<h3>Gained most</h3>{best}<h3>Gained least</h3>{worst}" if best else ""
    return {
        "before-and-after": section(
            "before-and-after",
            "Before and after",
            f"The plain prompt and {refiner} on {generator}, from the same noise. The prompts are spread evenly over "
            f"all gains, the highest first: nobody picked them. What was added is marked; figures are {scorer}.",
            cases.before_and_after(limit // 2),
        ),
        "strips": section(
            "strips",
            "Side by side",
            f"One prompt and one noise a row, all refiners. Figures are {scorer}.",
            cases.strips(list(about["refiners"]), list(about["generators"]), limit // 4),
        ),
        "extremes": section(
            "extremes",
            "Best and worst cases",
            f"The prompts that {refiner} gains most and least with on {generator}, by {scorer}.",
            extremes,
        ),
    }


def _gain_plots(summary: Record) -> str:
    about, panels = summary["about"], []
    for scorer, entry in about["scorers"].items():
        series = {
            generator: {row["refiner"]: _interval(row) for row in rows_of(summary, generator, scorer)}
            for generator in about["generators"]
        }
        refiners = [name for name in about["refiners"] if any(own.get(name) for own in series.values())]
        if refiners:
            values = {generator: [own.get(name) for name in refiners] for generator, own in series.items()}
            title = f"{scorer} ({entry['role']})"
            panels.append(_panel(title, plots.dots(refiners, values, "gain", f"Gain by {title}")))
    return _plots(panels)


def _prompt_plots(summary: Record, results: Results) -> str:
    about, refiner, scorer = summary["about"], main_refiner(summary["about"]), main_scorer(summary["about"])
    panels = []
    for generator in about["generators"]:
        before, after = results.cells.get((generator, NONE)), results.cells.get((generator, refiner or ""))
        if before is not None and after is not None:
            title = f"{scorer} of each prompt on {generator}"
            labels = (f"plain, {scorer}", f"{refiner}, {scorer}")
            panels.append(
                _panel(title, plots.before_and_after(before.scores[scorer], after.scores[scorer], labels, title))
            )
    names = [*categories_of(summary), ALL]
    if panels and len(names) > 1:
        series = {
            generator: [
                next(
                    (_interval(row) for row in rows_of(summary, generator, scorer, name) if row["refiner"] == refiner),
                    None,
                )
                for name in names
            ]
            for generator in about["generators"]
        }
        title = f"Gain of {refiner} by category"
        panels.append(_panel(title, plots.dots(names, series, f"gain in {scorer}", title)))
    return _plots(panels)


def _curve_plots(curves: Record | None) -> str:
    """A plot of each series over iterations, and over KL where that is known."""
    panels = []
    for axis in (ITERATION, "kl"):
        for name in [name for name in curves or {} if name not in (ITERATION, "kl")]:
            x, y = (curves or {}).get(axis), (curves or {})[name]
            if x is not None and any(a is not None and b is not None for a, b in zip(x, y, strict=True)):
                label = "iterations of RL" if axis == ITERATION else "KL to the warm-up, nats a token"
                title = f"{name} over {'iterations' if axis == ITERATION else 'KL'}"
                panels.append(_panel(title, plots.curve(x, y, (label, name), title)))
    return _plots(panels, "plots pairs" if len(panels) in (2, 4) else "plots")


def _panel(title: str, plot: str) -> str:
    return f'<div class="panel"><h3>{escaped(title)}</h3>{plot}</div>'


def _plots(panels: Sequence[str], kind: str = "plots") -> str:
    return f'<div class="{kind}">{"".join(panels)}</div>' if panels else ""


def _interval(row: Record) -> plots.Interval | None:
    if row["difference"] is None:
        return None
    return row["difference"], row["difference_low"], row["difference_high"]


def _failures(about: Record, path: Path) -> str:
    if not about["failed_images"]:
        return ""
    rows = failed_rows(path, FAILURES)
    names = ("user_prompt", "refiner", "generator", "seed", "error")
    table = Table(
        "Failed images",
        tuple(Column(name.replace("_", " "), words=True) for name in names),
        tuple(tuple(Cell(str(row[name])) for name in names) for row in rows),
    )
    count, listed = about["failed_images"], len(rows)
    lead = f"{count:,} of {about['images']:,} images failed; their scores are left out."
    more = f" The first {listed} are listed." if listed < count else ""
    return section(
        "failures", "Failed images", lead + more, fold("Failed images", table_html(table, "failed", named=False))
    )


def _settings(about: Record) -> str:
    blocks = []
    for name, value in about.items():
        if isinstance(value, Mapping) and value:
            text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
            blocks.append(fold(name, f'<pre tabindex="0">{escaped(text)}</pre>'))
    plain = {name: value for name, value in about.items() if not isinstance(value, Mapping)}
    lines = "".join(
        f"<div><dt>{escaped(n.replace('_', ' '))}</dt><dd>{escaped(v)}</dd></div>" for n, v in plain.items()
    )
    return f'<dl class="scores">{lines}</dl><br>{"".join(blocks)}'
