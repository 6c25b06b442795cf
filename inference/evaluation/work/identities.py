"""Identities of config entries by content: their options, with hashes of the files that they name instead of paths.

Two runs share the work of an entry only when its identities are equal. Replacing a weight file under the same name
makes another entry; moving a folder does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prip.files import file_hash, folder_hash
from prip.prior.preference_prior import embedded_files

from ...checkpoint_parts import Parts
from ..kinds.registry import BEST_JUDGE, PER_GENERATOR
from ..settings import Entry, EvaluationSettings, without

Identity = dict[str, Any]
CONTENT = "content"
"""Field of an identity: hashes of the files and checkpoint parts that were read."""
_PATHS = ("place", "tokenizer", "encoder", "unet", "adapter", "upscaler")
"""Options that name files, in an entry or in its mapping `options`."""
PARTS_READ: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "random-modifiers": (),
    "suffix": (),
    "prior-only": (),
    "prip": ("encoder", "decoder"),
    "best": (),
    "best-suffix": ("generator", "rewards"),
    "causal-lm": (),
    "seq2seq-lm": (),
    "chat": (),
    "diffusers": ("generator",),
    "renderer": ("readers",),
    "reward": ("rewards",),
    "truth": ("readers",),
    "second-reward": ("readers",),
    "subject-accuracy": ("readers",),
    "asked-for": ("readers",),
    "pivots": ("pivot_encoder",),
}
"""The parts of the evaluated checkpoint or run that each kind reads when its entry has no `place`."""
_OF_STAGE = {("prip", "warmup"): ("warmup_encoder", "decoder"), ("diffusers", "tune"): ("tuned_generator",)}


class Identities:
    """The identities of one evaluation's entries; each folder is hashed once."""

    def __init__(self, parts: Parts) -> None:
        """parts: of the evaluated checkpoint or run."""
        self.parts = parts
        self._hashes: dict[Path, str] = {}

    def of(self, entry: Entry) -> Identity:
        """Return the identity of a refiner, generator, scorer or embedder."""
        named, read = self._files(entry)
        options = without(entry, "seen", "role") | {option: _before_path(entry, option) for option in named}
        return {**options, CONTENT: {name: self._hash(path) for name, path in read.items()}}

    def of_refiner(self, settings: EvaluationSettings, name: str) -> Identity:
        """Return the identity of a refiner, including that of the judge it searches with, if any."""
        entry = settings.refiners[name]
        identity = self.of(entry)
        if entry["kind"] in PER_GENERATOR:
            judge = settings.scorers.get(entry.get("judge", BEST_JUDGE))
            identity["judge is"] = None if judge is None else self.of(judge)
        return identity

    def _files(self, entry: Entry) -> tuple[list[str], dict[str, Path]]:
        """Return the options that name local files, and the files that are read, by option or part."""
        named, read, parts = [], {}, self.parts if entry.get("place") is None else None
        for option in _PATHS:
            path = _path(entry, option)
            if path is None:
                continue
            if option in entry:
                named.append(option)
            if entry["kind"] == "prip" and (path / "encoder" / "part").is_dir():
                parts = Parts.of_run(path)
            else:
                read[option] = path
        if entry["kind"] == "prior-only" and entry.get("place") is None:
            read |= {f"the prior's {path.name}": path for path in embedded_files()}
        wanted = PARTS_READ[entry["kind"]] if parts is not None else ()
        wanted = _OF_STAGE.get((entry["kind"], entry.get("stage", "")), wanted) if wanted else ()
        for part in wanted:
            folder = getattr(parts, part)
            if folder is not None and folder.is_dir() and not ("encoder" in entry and part.endswith("encoder")):
                read[f"the {part}"] = folder
        return named, read

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = folder_hash(path) if path.is_dir() else file_hash(path)
        return self._hashes[path]


def _path(entry: Entry, option: str) -> Path | None:
    """Return the file or folder that an option names, alone or after NAME=; None when it does not exist."""
    options = entry.get("options")
    value = {**(options if isinstance(options, Mapping) else {}), **entry}.get(option)
    path = Path(value.partition("=")[2] or value) if isinstance(value, str) else None
    return path if path is not None and path.exists() else None


def _before_path(entry: Entry, option: str) -> str:
    name, equals, _ = str(entry[option]).partition("=")
    return name + equals if equals else ""


def differing(before: Identity, after: Identity) -> str:
    """Return in words what differs between two identities, "" for nothing."""
    names = [
        name for name in dict.fromkeys([*before, *after]) if name != CONTENT and before.get(name) != after.get(name)
    ]
    read, now = before.get(CONTENT, {}), after.get(CONTENT, {})
    files = [f"files of {name}" for name in dict.fromkeys([*read, *now]) if read.get(name) != now.get(name)]
    return ", ".join([*names, *files])
