"""What the work in an evaluation's folder was made with, and what of it still holds when the settings are others."""

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
"""What every text and image depends on."""
_ENTRIES = {"refiners": "refiner", "generators": "generator", "scorers": "scorer"}
Made = dict[str, Any]


def made_with(settings: EvaluationSettings, context: Context, prompts: Sequence[EvaluationPrompt]) -> Made:
    """Returns, fit for JSON, what texts, images and scores depend on: comparisons, roles and draws play no part."""
    identities = Identities(context.parts)
    made = {
        "seed": context.seed,
        "images_per_prompt": settings.images_per_prompt,
        "chunk": settings.chunk,
        "prompts": [[prompt.text, prompt.category, prompt.unit, prompt.cluster] for prompt in prompts],
        "refiners": {name: identities.of_refiner(settings, name) for name in settings.refiners},
        "generators": {name: identities.of(entry) for name, entry in settings.generators.items()},
        "scorers": {name: identities.of(entry) for name, entry in settings.scorers.items()},
        "embedder": None if settings.embedder is None else identities.of(settings.embedder),
    }
    return json.loads(json.dumps(made, ensure_ascii=False, default=list))


def begin(
    folder: Path,
    settings: EvaluationSettings,
    context: Context,
    prompts: Sequence[EvaluationPrompt],
    overwrite: bool = False,
) -> None:
    """Makes the folder ready: what it holds was then made with these settings, or with entries that they lack.

    overwrite: delete what was made otherwise, and say so on stderr before. Raises InputError, which names what differs,
    where there is such work and it is not to be deleted.
    """
    wanted, path = made_with(settings, context, prompts), folder / SETTINGS
    before = _made_before(folder)
    changes = [] if before is None else _changes(before, wanted)
    if changes:
        words = ", ".join(dict.fromkeys(word for word, _, _ in changes))
        lost = " and ".join(dict.fromkeys(what for _, what, _ in changes))
        if not overwrite:
            raise InputError(
                f"out: {folder} holds an evaluation with other {words}: choose another folder, or --overwrite, which "
                f"deletes {lost}"
            )
        print(f"{folder}: other {words}; deleting {lost}", file=sys.stderr, flush=True)
        for _, _, (patterns, columns) in changes:
            _delete(folder, patterns, columns)
    check_target(path)
    kept = {} if before is None or any(word in (*_FOR_ALL, _UNKNOWN) for word, _, _ in changes) else before
    for section in _ENTRIES:
        wanted[section] = {**kept.get(section, {}), **wanted[section]}
    wanted["embedder"] = wanted["embedder"] or kept.get("embedder")
    told = json.dumps({"settings": asdict(settings), "made": wanted}, indent=1, ensure_ascii=False, default=list)
    write_output(path, (told + "\n").encode())


_UNKNOWN = "settings that are not told"
_Change = tuple[str, str, tuple[Sequence[str], Sequence[str]]]
"""What differs; what that makes worthless, in words; the same as patterns of folders, and as columns of parts."""


def _made_before(folder: Path) -> Made | None:
    """Returns what the folder's work was made with: None where there is no work, empty where that is not told."""
    if not any(folder.glob(f"{REFINED}/*/*.parquet")) and not any(folder.glob(f"{PARTS}/*/*.parquet")):
        return None
    try:
        made = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["made"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return made if isinstance(made, dict) else {}


def _changes(before: Made, wanted: Made) -> list[_Change]:
    every: tuple[list[str], list[str]] = ([f"{REFINED}/*", f"{PARTS}/*"], [])
    if not before:
        return [(_UNKNOWN, "all refined prompts and measurements", every)]
    changes: list[_Change] = [
        (name, "all refined prompts and measurements", every) for name in _FOR_ALL if before.get(name) != wanted[name]
    ]
    if changes:
        return changes
    for section, what in _ENTRIES.items():
        for name, identity in wanted[section].items():
            how = differing(before[section].get(name, identity), identity)
            if how:
                lost, patterns, columns = _lost(what, name)
                changes.append((f"{what} {name!r} ({how})", lost, (patterns, columns)))
    if before["embedder"] is not None and wanted["embedder"] is not None:
        how = differing(before["embedder"], wanted["embedder"])
        if how:
            changes.append((f"embedder ({how})", "the measurements of diversity", ([], [VECTOR])))
    return changes


def _lost(what: str, name: str) -> tuple[str, list[str], list[str]]:
    """Returns what an entry that is another makes worthless, in words, as folders and as columns of parts."""
    own = escape(name)
    if what == "refiner":
        return f"the refined prompts of {name}", [f"{REFINED}/{own}", f"{REFINED}/{own}@*"], []
    if what == "generator":
        return f"the measurements on {name}", [f"{PARTS}/{own}", f"{REFINED}/*@{own}"], []
    return f"the scores of {name}", [], [SCORE + name]


def _delete(folder: Path, patterns: Sequence[str], columns: Sequence[str]) -> None:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            shutil.rmtree(path)
    for path in sorted(folder.glob(f"{PARTS}/*/*.parquet")) if columns else ():
        table = pd.read_parquet(path)
        write_table(path, table.drop(columns=[name for name in columns if name in table]))
