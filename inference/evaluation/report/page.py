"""An evaluation as one page of HTML that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..curves import ITERATION
from ..people import people_tables
from ..results import Results, failed_rows
from ..settings import NONE
from ..summary import ALL, main_refiner, main_scorer
from ..table import Cell, Column, Table
from ..tables import categories_of, comparison_tables, decimals_of, generator_title, images_each, rows_of, score_tables
from . import plots
from .cases import Cases
from .headline import Headline, headline
from .markup import escaped, fold, section, signed, table_html
from .pictures import Album

IMAGE_LIMIT = 120
"""Images on a page, unless more or fewer are asked for."""
FAILURES = 50
"""Failed images that a page lists."""
Record = Mapping[str, Any]


def report_page(
    summary: Record, results: Results, path: Path, image_path: Callable[[str], Path], image_limit: int = IMAGE_LIMIT
) -> str:
    """Returns the report in HTML, self-contained.

    summary: of `results`, by summarise. path: results.parquet, from which the rows of a few prompts are read.
    image_path: image address -> file. image_limit: images on the page at most; 0 leaves all of them out.
    """
    about = summary["about"]
    album = Album(image_path)
    made = {
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
            "".join(table_html(table, f"scores-{place}") for place, table in enumerate(score_tables(summary))),
        ),
        "people": section(
            "people",
            "What people say",
            "Annotators saw the user prompt and the images, and did not know whose they were.",
            "".join(
                table_html(table, f"people-{place}") for place, table in enumerate(people_tables(summary.get("people")))
            ),
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
            "".join(
                fold(table.title, table_html(table, f"tests-{place}", named=False), opened=place == 0)
                for place, table in enumerate(comparison_tables(summary))
            ),
        ),
        "failures": _failures(about, path),
        "settings": section("settings", "Settings", "What was measured, and how.", _settings(about)),
    }
    present = {name: made[name] for name in _LINKS if made.get(name)}
    told = headline(summary)
    own = resources.files(__package__)
    template = Template((own / "page.html").read_text(encoding="utf-8"))
    parts = {
        "title": escaped(f"PRIP evaluation: {about['config']}, {about['checkpoint']}"),
        "style": (own / "style.css").read_text(encoding="utf-8"),
        "eyebrow": escaped(_eyebrow(about)),
        "sentence": signed(escaped(told.sentence)),
        "cost": signed(escaped(told.cost)),
        "facts": _facts(told),
        "links": "".join(f'<a href="#{name}">{_LINKS[name]}</a>' for name in present),
        "sections": "\n".join(present.values()),
    }
    kilobytes = len(template.substitute(parts, footer="").encode()) / 1000
    size = f"{kilobytes / 1000:.1f} MB" if kilobytes >= 1000 else f"{kilobytes:.0f} kB"
    footer = (
        f"{album.shown} of the evaluation's {about['images']:,} images are on this page of {size}, which needs no "
        "network. All rows: results.parquet."
    )
    return template.substitute(parts, footer=escaped(footer))


_LINKS = {
    "before-and-after": "Before and after",
    "refiners": "Refiners",
    "scores": "Scores",
    "people": "People",
    "prompts": "Prompt by prompt",
    "curves": "Over RL",
    "strips": "Side by side",
    "extremes": "Best and worst",
    "tests": "Tests",
    "failures": "Failures",
    "settings": "Settings",
}


def _eyebrow(about: Record) -> str:
    prompts = f"{about['prompts']:,} user prompts" + (
        f" in {about['clusters']:,} clusters" if about["clusters"] != about["prompts"] else ""
    )
    generators = " and ".join(generator_title(about, name) for name in about["generators"])
    return (
        f"PRIP evaluation of {about['checkpoint']}, config {about['config']}: {prompts}, "
        f"{images_each(about)}, on {generators}"
    )


def _facts(told: Headline) -> str:
    return "".join(
        f'<li class="{fact.tone}"><span class="name">{escaped(fact.name)}</span>'
        f'<span class="figure">{signed(escaped(fact.figure))}</span>'
        f'<span class="detail">{signed(escaped(fact.detail))}</span></li>'
        for fact in told.facts
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


def _panel(title: str, plot: str) -> str:
    return f'<div class="panel"><h3>{escaped(title)}</h3>{plot}</div>'


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


def _interval(row: Record) -> plots.Interval | None:
    if row["difference"] is None:
        return None
    return row["difference"], row["difference_low"], row["difference_high"]


def _plots(panels: Sequence[str], kind: str = "plots") -> str:
    return f'<div class="{kind}">{"".join(panels)}</div>' if panels else ""


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
