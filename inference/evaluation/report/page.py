"""An evaluation as one page of HTML that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..analysis.results import Results
from ..analysis.tables import generator_title, images_each
from .headline import Headline, headline
from .markup import escaped, signed
from .pictures import Album
from .sections import all_sections

IMAGE_LIMIT = 120
"""Images on a page, unless more or fewer are asked for."""
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
    made = all_sections(summary, results, path, album, image_limit)
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
    size = len(template.substitute(parts, footer="").encode())
    return template.substitute(parts, footer=escaped(_footer(about, album, size)))


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


def _footer(about: Record, album: Album, size: int) -> str:
    """size: of the page without it, in bytes."""
    told = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1000:.0f} kB"
    return (
        f"{album.shown} of the evaluation's {about['images']:,} images are on this page of {told}, which needs no "
        "network. All rows: results.parquet."
    )
