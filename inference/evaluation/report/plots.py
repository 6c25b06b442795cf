"""Plots of a report as SVG, in the colours of the page's light and dark styles."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np
from markupsafe import escape

from prip.errors import require

from ..analysis.statistics import TIE, Floats

COLOURS = {
    "ink": "#010101",
    "soft": "#020202",
    "line": "#030303",
    "first": "#040404",
    "second": "#050505",
    "third": "#060606",
    "good": "#070707",
    "bad": "#080808",
    "card": "#090909",
}
"""Placeholder of each of the style's colours until the SVG is written."""
SERIES = (("first", "o"), ("second", "D"), ("third", "s"))
"""Colour and marker of a plot's series, which repeat after the last."""
_WIDTH, _FONT = 5.0, 12.0
_POINTS = 1500
"""Maximum number of points of a scatter plot."""

Interval = tuple[float, float, float]
"""A figure and the ends of its interval."""


def dots(rows: Sequence[str], series: Mapping[str, Sequence[Interval | None]], label: str, title: str) -> str:
    """Return figures with their intervals, one row each and one marker per series, and a line at 0.

    series: by name, one figure or None per row.
    """
    lines = len(rows) * max(1, len(series))
    with _axes(title, 1.2 + 0.16 * lines + 0.16 * len(rows)) as (figure, axes):
        offsets = np.linspace(-0.2, 0.2, len(series)) if len(series) > 1 else [0.0]
        axes.axvline(0, color=COLOURS["soft"], linewidth=1)
        for offset, (name, values), (colour, marker) in zip(offsets, series.items(), cycle(SERIES), strict=False):
            points = [(row + offset, value) for row, value in enumerate(values) if value is not None]
            for height, (_, low, high) in points:
                axes.plot([low, high], [height, height], color=COLOURS[colour], linewidth=2, solid_capstyle="butt")
            axes.plot(
                [value[0] for _, value in points],
                [height for height, _ in points],
                marker,
                color=COLOURS[colour],
                markersize=6,
                label=name,
            )
        axes.set_yticks(range(len(rows)), [row if len(row) <= 18 else f"{row[:17]}…" for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        _legend(axes, len(series))
        return _svg(figure, title)


def before_and_after(before: Floats, after: Floats, labels: tuple[str, str], title: str) -> str:
    """Return one point per prompt, its plain score on x and its refined score on y; above the diagonal it gained.

    before and after: `(prompts,)`; prompts that lack one of them (NaN) are ignored.
    """
    valid = ~np.isnan(before + after)
    x, y = before[valid], after[valid]
    shown = np.unique(np.linspace(0, max(0, len(x) - 1), min(len(x), _POINTS)).round().astype(int))
    kinds = (("gain", "good", y - x > TIE), ("tie", "soft", np.abs(y - x) <= TIE), ("loss", "bad", x - y > TIE))
    with _axes(title, 4.9) as (figure, axes):
        ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))] if len(x) else [0.0, 1.0]
        margin = 0.04 * (ends[1] - ends[0]) or 0.5
        ends = [ends[0] - margin, ends[1] + margin]
        axes.plot(ends, ends, color=COLOURS["soft"], linewidth=1, linestyle=(0, (4, 3)))
        for (name, colour, mask), marker in zip(kinds, ("o", "s", "v"), strict=True):
            own = np.intersect1d(shown, np.nonzero(mask)[0]).astype(int)
            share = f"{name} {int(mask.sum()):,}"
            axes.plot(x[own], y[own], marker, color=COLOURS[colour], markersize=4.5, alpha=0.55, label=share, mew=0)
        axes.set(xlim=ends, ylim=ends, xlabel=labels[0], ylabel=labels[1], aspect="equal")
        axes.grid()
        _legend(axes, 3)
        return _svg(figure, title)


def curve(x: Sequence[float | None], y: Sequence[float | None], labels: tuple[str, str], title: str) -> str:
    """Return a line through the points that both series have, with its highest point marked."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if a is not None and b is not None]
    with _axes(title, 2.9) as (figure, axes):
        axes.plot(*zip(*points, strict=True), "o-", color=COLOURS["first"], markersize=3.5, linewidth=1.6)
        highest = max(points, key=lambda point: point[1])
        axes.plot(*highest, "o", color=COLOURS["second"], markersize=7, label=f"highest: {highest[1]:.3g}")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.grid()
        _legend(axes, 2)
        return _svg(figure, title)


def _legend(axes: Any, count: int) -> None:
    if count > 1:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=3,
            frameon=False,
            handletextpad=0,
            columnspacing=0.8,
            borderaxespad=0,
        )


@contextmanager
def _axes(title: str, height: float) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its axes, `height` inches high, in the page's colours."""
    matplotlib = require("matplotlib", "evaluate")
    figure_module = require("matplotlib.figure", "evaluate")
    style = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "svg.hashsalt": title,
        "font.size": _FONT,
        "axes.edgecolor": COLOURS["line"],
        "axes.labelcolor": COLOURS["soft"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": COLOURS["line"],
        "grid.linewidth": 0.7,
        "text.color": COLOURS["ink"],
        "xtick.color": COLOURS["line"],
        "ytick.color": COLOURS["line"],
        "xtick.labelcolor": COLOURS["soft"],
        "ytick.labelcolor": COLOURS["ink"],
        "legend.fontsize": _FONT,
    }
    with matplotlib.rc_context(style):
        figure = figure_module.Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        yield figure, axes


def _svg(figure: Any, title: str) -> str:
    """Return a figure as a labelled SVG element of full width, with unique ids and the page's colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    name = re.sub(r"\W+", "-", title).strip("-")
    width, height = (math.ceil(side * 72) for side in figure.get_size_inches())
    opening = f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}" class="plot">'
    text = opening + text[text.index(">") + 1 :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    text = re.sub(
        r"font(-family)?: (\d[\d.]*px )?'[^;\"]*", lambda m: f"font-size: {m[2].strip()}" if m[2] else "", text
    )
    for colour, stand_in in COLOURS.items():
        text = text.replace(stand_in, f"var(--{colour})")
    return re.sub(r"\s*\n\s*", "\n", text)
