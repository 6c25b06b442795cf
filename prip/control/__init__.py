"""Control over what is added: kept attributes, styles, artists and faults."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def read_table(name: str) -> dict[str, Any]:
    """Return the content of one of this package's JSON files."""
    return json.loads((files(__package__) / f"{name}.json").read_text(encoding="utf-8"))
