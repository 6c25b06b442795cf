"""What mkdocs does not do by itself: equations as MathML, which need no script, and links to what is no page."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
_DISPLAY = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_EQUATION = '<div class="equation" tabindex="0" role="group" aria-label="equation">{}</div>'
"""Scrolls by itself, by the keyboard too."""
_INLINE = re.compile(r"(?<![\w$`])\$([^$\n`]+)\$(?![\w$`])")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Converts a page outside its code fences. A file of the repository that is no page is named, not linked."""
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _converted(part) for part in parts)


def _converted(text: str) -> str:
    text = _DISPLAY.sub(lambda found: _EQUATION.format(convert(found[1].strip(), display="block")), text)
    text = _INLINE.sub(lambda found: convert(found[1]), text)
    return _OUTSIDE.sub(lambda found: found[1] if found[2] in found[1] else f"{found[1]} (`{found[2]}`)", text)
