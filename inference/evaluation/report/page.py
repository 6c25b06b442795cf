"""Renders an evaluation's report as one self-contained HTML page."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..analysis.results import Results
from ..analysis.tables import generator_title, images_each
from .headline import headline
from .pictures import Album
from .sections import all_sections

IMAGE_LIMIT = 120
"""Default number of images on a page."""
Record = Mapping[str, Any]
_WORDS = re.compile(r"\s+|[^\s,.;:!?]+|[,.;:!?]")


def report_page(
    summary: Record, results: Results, path: Path, image_path: Callable[[str], Path], image_limit: int = IMAGE_LIMIT
) -> str:
    """Return the report as self-contained HTML.

    Args:
        summary: From `summarise`.
        path: results.parquet, from which the rows of a few prompts are read.
        image_path: Maps an image address to its file.
        image_limit: Maximum number of images on the page; 0 for none.
    """
    about, album = summary["about"], Album(image_path)
    sections = all_sections(summary, results, path, album, image_limit)
    environment = _environment()
    style, _, _ = environment.loader.get_source(environment, "style.css")  # type: ignore[union-attr]
    content = {
        "title": f"PRIP evaluation: {about['config']}, {about['checkpoint']}",
        "style": style,
        "eyebrow": _eyebrow(about),
        "headline": headline(summary),
        "sections": sections,
    }
    template = environment.get_template("page.html")
    size = len(template.render(content, footer="").encode())
    return template.render(content, footer=_footer(about, album, size))


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"signed": signed, "marked": marked}
    return environment


def signed(text: str) -> str:
    """Return a text in which numbers have a true minus sign."""
    return re.sub(r"(?<![\w.])-(?=[\d.])", "\N{MINUS SIGN}", text)


def marked(refined_prompt: str, user_prompt: str) -> Markup:
    """Return a refined prompt in HTML with the refiner's additions in <mark>.

    A continuation is marked from where the user prompt ends. In a rewritten prompt, each word is marked that the user
    prompt does not have at that position.
    """
    kept = user_prompt.rstrip(" .,")
    if refined_prompt.startswith(kept):
        added = refined_prompt[len(kept) :]
        return escape(kept) + (_mark(added) if added.strip(" .,") else escape(added))
    before, after = _WORDS.findall(user_prompt), _WORDS.findall(refined_prompt)
    matcher = difflib.SequenceMatcher(None, [word.lower() for word in before], [word.lower() for word in after], False)
    result = Markup()
    for kind, _, _, start, end in matcher.get_opcodes():
        text = "".join(after[start:end])
        result += escape(text) if kind == "equal" or not text.strip() else _mark(text)
    return result


def _mark(text: str) -> Markup:
    return Markup("<mark>{}</mark>").format(text)


def _eyebrow(about: Record) -> str:
    prompts = f"{about['prompts']:,} user prompts"
    if about["clusters"] != about["prompts"]:
        prompts += f" in {about['clusters']:,} clusters"
    generators = " and ".join(generator_title(about, name) for name in about["generators"])
    return (
        f"PRIP evaluation of {about['checkpoint']}, config {about['config']}: {prompts}, {images_each(about)}, on "
        f"{generators}"
    )


def _footer(about: Record, album: Album, size: int) -> str:
    """size: of the page without its footer, in bytes."""
    shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1000:.0f} kB"
    return (
        f"{album.shown} of the evaluation's {about['images']:,} images are on this page of {shown}, which needs no "
        "network. All rows: results.parquet."
    )
