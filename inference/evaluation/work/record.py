"""Records what the work in an evaluation's folder was made with, and deletes what other settings invalidate."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from glob import escape
from pathlib import Path
from typing import Any

import pandas as pd

from prip.errors import InputError
from prip.files import check_target, write_output

from ..analysis.results import SCORE
from ..kinds.registry import Context, EvaluationPrompt
from ..settings import EvaluationSettings
from .chunks import write_table
from .identities import Identities, differing
from .measuring import VECTOR

SETTINGS, REFINED, PARTS = "settings.json", "refined", "parts"
_FOR_ALL = ("seed", "images_per_prompt", "chunk", "prompts")
"""Settings that every text and image depends on."""
_ENTRIES = {"refiners": "refiner", "generators": "generator", "scorers": "scorer"}
Record = dict[str, Any]


def made_with(settings: EvaluationSettings, context: Context, prompts: Sequence[EvaluationPrompt]) -> Record:
    """Return what texts, images and scores depend on, as JSON: comparisons, roles and draws do not matter."""
    identities = Identities(context.parts)
    record = {
        "seed": context.seed,
        "images_per_prompt": settings.images_per_prompt,
        "chunk": settings.chunk,
        "prompts": [[prompt.text, prompt.category, prompt.unit, prompt.cluster] for prompt in prompts],
        "refiners": {name: identities.of_refiner(settings, name) for name in settings.refiners},
        "generators": {name: identities.of(entry) for name, entry in settings.generators.items()},
        "scorers": {name: identities.of(entry) for name, entry in settings.scorers.items()},
        "embedder": None if settings.embedder is None else identities.of(settings.embedder),
    }
    return json.loads(json.dumps(record, ensure_ascii=False, default=list))


def begin(
    folder: Path,
    settings: EvaluationSettings,
    context: Context,
    prompts: Sequence[EvaluationPrompt],
    overwrite: bool = False,
) -> None:
    """Prepare the folder: afterwards its work was made with these settings, or with entries that they lack.

    Raises:
        InputError: The folder holds work made with other settings, which the message names, and `overwrite` is not
            set. With `overwrite`, that work is announced on stderr and deleted.
    """
    wanted, path = made_with(settings, context, prompts), folder / SETTINGS
    before = _made_before(folder)
    changes = [] if before is None else _changes(before, wanted)
    if changes:
        words = ", ".join(dict.fromkeys(word for word, _, _ in changes))
        lost = " and ".join(dict.fromkeys(invalid for _, invalid, _ in changes))
        if not overwrite:
            raise InputError(
                f"out: expected a folder made with these settings, got {folder}, made with other {words}; choose "
                f"another folder, or use --overwrite, which deletes {lost}"
            )
        print(f"{folder}: other {words}; deleting {lost}", file=sys.stderr, flush=True)
        for _, _, (patterns, columns) in changes:
            _delete(folder, patterns, columns)
    check_target(path)
    kept = {} if before is None or any(word in (*_FOR_ALL, _UNKNOWN) for word, _, _ in changes) else before
    for section in _ENTRIES:
        wanted[section] = {**kept.get(section, {}), **wanted[section]}
    wanted["embedder"] = wanted["embedder"] or kept.get("embedder")
    text = json.dumps({"settings": asdict(settings), "made": wanted}, indent=1, ensure_ascii=False, default=list)
    write_output(path, (text + "\n").encode())


_UNKNOWN = "settings, which are not recorded"
_Change = tuple[str, str, tuple[Sequence[str], Sequence[str]]]
"""What differs, what that invalidates in words, and the same as folder patterns and columns of parts."""


def _made_before(folder: Path) -> Record | None:
    """Return what the folder's work was made with, None without work, empty when it is not recorded."""
    if not any(folder.glob(f"{REFINED}/*/*.parquet")) and not any(folder.glob(f"{PARTS}/*/*.parquet")):
        return None
    try:
        record = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["made"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return record if isinstance(record, dict) else {}


def _changes(before: Record, wanted: Record) -> list[_Change]:
    every: tuple[list[str], list[str]] = ([f"{REFINED}/*", f"{PARTS}/*"], [])
    if not before:
        return [(_UNKNOWN, "all refined prompts and measurements", every)]
    changes: list[_Change] = [
        (name, "all refined prompts and measurements", every) for name in _FOR_ALL if before.get(name) != wanted[name]
    ]
    if changes:
        return changes
    for section, label in _ENTRIES.items():
        for name, identity in wanted[section].items():
            difference = differing(before[section].get(name, identity), identity)
            if difference:
                lost, patterns, columns = _lost(label, name)
                changes.append((f"{label} {name!r} ({difference})", lost, (patterns, columns)))
    if before["embedder"] is not None and wanted["embedder"] is not None:
        difference = differing(before["embedder"], wanted["embedder"])
        if difference:
            changes.append((f"embedder ({difference})", "the measurements of diversity", ([], [VECTOR])))
    return changes


def _lost(label: str, name: str) -> tuple[str, list[str], list[str]]:
    """Return what a changed entry invalidates: in words, as folder patterns and as columns of parts."""
    pattern = escape(name)
    if label == "refiner":
        return f"the refined prompts of {name}", [f"{REFINED}/{pattern}", f"{REFINED}/{pattern}@*"], []
    if label == "generator":
        return f"the measurements on {name}", [f"{PARTS}/{pattern}", f"{REFINED}/*@{pattern}"], []
    return f"the scores of {name}", [], [SCORE + name]


def _delete(folder: Path, patterns: Sequence[str], columns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            shutil.rmtree(path)
    for path in sorted(folder.glob(f"{PARTS}/*/*.parquet")) if columns else ():
        table = pd.read_parquet(path)
        write_table(path, table.drop(columns=[name for name in columns if name in table]))
