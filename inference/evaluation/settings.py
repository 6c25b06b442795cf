"""Settings of an evaluation: prompts, refiners, generators, scorers, and how much is drawn."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from prip.config_files import read_config_chain
from prip.errors import InputError, any_of, meant
from prip.options import check_whole
from prip.settings_parser import ValuesParser

from .kinds.registry import EMBEDDERS, GENERATORS, PER_GENERATOR, PROMPT_SETS, REFINERS, SCORERS, Entry, Kinds

NONE = "none"
"""The refiner that all others are compared with."""
ROLES = ("trained against", "held out", "fidelity")
"""A scorer's role in the tables: a reward that the refiner was trained against, one that it was not, or a measure of
whether the image still shows what the user asked for."""
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_SECTIONS: Mapping[str, Kinds[Any]] = {"refiners": REFINERS, "generators": GENERATORS, "scorers": SCORERS}
_OWN_OPTIONS = {"generators": ("seen",), "scorers": ("role",)}
"""Options of entries that are the evaluation's and not their kind's."""
_LEAST = {
    "agreement_renders": 0,
    "images_per_prompt": 1,
    "prompt_limit": 0,
    "bootstrap_draws": 100,
    "chunk": 1,
    "batch_size": 1,
}


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of an evaluation; the kinds are listed in `inference/evaluation/kinds/registry.py`."""

    prompts: Entry = field(default_factory=lambda: {"kind": "miniature"})
    """The prompt set."""
    refiners: Mapping[str, Any] = field(default_factory=dict)
    """By their names in the tables; `none` is always included."""
    generators: Mapping[str, Any] = field(default_factory=dict)
    """By name. `seen`: whether the refiner was trained against it (default true). Without generators and scorers only
    texts are measured: what the refiners add."""
    scorers: Mapping[str, Any] = field(default_factory=dict)
    """By name. `role`: one of ROLES (default held out)."""
    comparisons: Sequence[Sequence[str]] = ()
    """Pairs (from, to) that are tested against each other: two refiners on each generator, or two
    REFINER@GENERATOR."""
    embedder: Entry | None = None
    """Maps images to vectors to measure diversity; null skips it."""
    agreement_renders: int = 0
    """Renders on which the miniature's judge truth is compared with the exact truth; 0 skips it."""
    images_per_prompt: int = 4
    """Images per user prompt; their seeds are the same for every refiner."""
    prompt_limit: int = 0
    """Maximum number of prompts, spread over the whole set; 0 takes all."""
    bootstrap_draws: int = 10_000
    """Resamplings of clusters for each interval and p-value."""
    chunk: int = 64
    """User prompts that are refined, drawn and scored between two saves: bounds the memory and what a killed run
    loses."""
    batch_size: int = 256
    """Images drawn and scored at a time."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            check_whole(name, getattr(self, name), least)
        object.__setattr__(self, "refiners", {NONE: {"kind": "none"}, **self.refiners})
        PROMPT_SETS.check("prompts", self.prompts)
        if self.embedder is not None:
            EMBEDDERS.check("embedder", self.embedder)
        for section, kinds in _SECTIONS.items():
            for name, entry in getattr(self, section).items():
                _check_name(section, name)
                if not isinstance(entry, Mapping):
                    raise InputError(f"{kinds.section} {name!r}: expected a kind and its options, got {entry!r}")
                kinds.check(name, without(entry, *_OWN_OPTIONS.get(section, ())))
        for name, entry in self.generators.items():
            if not isinstance(entry.get("seen", True), bool):
                raise InputError(f"generator {name!r}: seen: expected true or false, got {entry['seen']!r}")
        for name, entry in self.scorers.items():
            if entry.get("role", ROLES[1]) not in ROLES:
                raise InputError(f"scorer {name!r}: role: expected {any_of(ROLES)}, got {entry['role']!r}")
        if bool(self.generators) != bool(self.scorers):
            raise InputError("generators and scorers: expected at least one of each, or none for texts alone")
        if not self.generators:
            self._check_texts_alone()
        for pair in self.comparisons:
            self._check_pair(pair)

    def _check_texts_alone(self) -> None:
        """Raise InputError for settings that need images."""
        for name, entry in self.refiners.items():
            if entry["kind"] in PER_GENERATOR:
                raise InputError(f"refiner {name!r}: expected a kind that needs no generator, got {entry['kind']!r}")
        if self.embedder is not None or self.agreement_renders:
            raise InputError("embedder, agreement_renders: expected none without generators")

    def _check_pair(self, pair: Sequence[str]) -> None:
        if len(pair) != 2:
            raise InputError(f"comparisons: expected pairs of refiners, got {pair!r}")
        sides = [side(name) for name in pair]
        generators = [generator for _, generator in sides if generator is not None]
        _check_known("comparisons", [refiner for refiner, _ in sides], self.refiners)
        _check_known("comparisons", generators, self.generators)
        if len(generators) == 1:
            raise InputError(f"comparisons: expected a generator on both sides or on neither, got {list(pair)}")

    def selected(
        self,
        refiners: Sequence[str] | None = None,
        generators: Sequence[str] | None = None,
        scorers: Sequence[str] | None = None,
    ) -> EvaluationSettings:
        """Return the settings with only these refiners, generators and scorers.

        None keeps all, and `none` always stays. Comparisons of removed refiners or generators are removed too.

        Raises:
            InputError: The settings lack one of the names.
        """
        kept: dict[str, Any] = {}
        for section, wanted in (("refiners", refiners), ("generators", generators), ("scorers", scorers)):
            entries = getattr(self, section)
            _check_known(section, wanted or (), entries)
            always = (NONE,) if section == "refiners" else ()
            kept[section] = {
                name: entry for name, entry in entries.items() if wanted is None or name in (*wanted, *always)
            }
        comparisons = [
            pair
            for pair in self.comparisons
            if all(
                refiner in kept["refiners"] and (generator is None or generator in kept["generators"])
                for refiner, generator in map(side, pair)
            )
        ]
        return replace(self, comparisons=comparisons, **kept)


def side(name: str) -> tuple[str, str | None]:
    """Return the refiner of one side of a comparison, and its generator or None."""
    refiner, at, generator = name.partition("@")
    return refiner, generator if at else None


def without(entry: Entry, *names: str) -> dict[str, Any]:
    """Return an entry without some of its options."""
    return {option: value for option, value in entry.items() if option not in names}


def _check_name(section: str, name: object) -> None:
    """Raise InputError for a name that cannot be a column and a folder."""
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & set('/\\:*?"<>|@\0\n'):
        raise InputError(f"{section}: expected names without slashes, colons and @, got {name!r}")


def _check_known(section: str, names: Sequence[str], known: Mapping[str, Entry]) -> None:
    for name in names:
        if not known:
            raise InputError(f"{section}: expected none for an evaluation of texts alone, got {name!r}")
        if name not in known:
            raise InputError(f"{section}: expected {any_of(list(known))}, got {name!r}{meant(name, list(known))}")


def read_settings(config: str, **changes: Any) -> EvaluationSettings:
    """Read the settings of a preset or YAML file.

    A config with `extends: NAME` starts from the settings of another; its refiners, generators and scorers are added.

    Args:
        config: Name of a preset, or path of a YAML file.
        changes: Settings that override the config unless they are None.

    Raises:
        InputError: The config does not exist, or a setting is unknown or out of range.
    """
    presets = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
    values: dict[str, Any] = {}
    for layer in read_config_chain(config, presets).values():
        merged = {
            section: {**values[section], **layer[section]}
            for section in _SECTIONS
            if isinstance(values.get(section), dict) and isinstance(layer.get(section), dict)
        }
        values |= {**layer, **merged}
    values |= {name: value for name, value in changes.items() if value is not None}
    parser = ValuesParser(exit_on_error=False)
    parser.add_class_arguments(EvaluationSettings, as_group=False)
    try:
        return EvaluationSettings(**parser.values_of(values))
    except InputError as error:
        raise InputError(f"config {config!r}: {error}") from error


def settings_from(arguments: argparse.Namespace) -> EvaluationSettings:
    """Return the settings that a command line of `prip evaluate` asks for. Raises InputError as `read_settings`."""
    settings = read_settings(
        arguments.config,
        images_per_prompt=arguments.images_per_prompt,
        prompt_limit=arguments.prompt_limit,
        prompts=None if arguments.prompts is None else prompts_entry(arguments.prompts),
    )
    added = dict(refiner_entry(text) for text in arguments.refiner)
    chosen = settings.selected(arguments.refiners, arguments.generators, arguments.scorers)
    return replace(chosen, refiners={**chosen.refiners, **added})


def prompts_entry(text: str) -> dict[str, Any]:
    """Return the entry of a prompt set that is written as KIND, KIND:PLACE or the path of a file."""
    if Path(text).is_file():
        return {"kind": "file", "place": text}
    return _entry("prompts", text, PROMPT_SETS, "place")


def refiner_entry(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and entry of a refiner that is written as NAME of a preset, NAME=KIND or NAME=KIND:PLACE."""
    name, equals, rest = text.partition("=")
    if equals:
        option = "text" if rest.partition(":")[0] == "suffix" else "place"
        return name, _entry(f"refiner {name!r}", rest, REFINERS, option)
    presets = {path.stem: path for path in sorted((CONFIGS / "refiners").glob("*.yaml"))}
    if name not in presets:
        known = list(presets)
        raise InputError(f"refiner: expected {any_of([*known, 'NAME=KIND:PLACE'])}, got {name!r}{meant(name, known)}")
    return name, yaml.safe_load(presets[name].read_text(encoding="utf-8"))


def _entry(label: str, text: str, kinds: Kinds[Any], option: str) -> dict[str, Any]:
    kind, colon, rest = text.partition(":")
    if kind not in kinds:
        known = list(kinds)
        raise InputError(
            f"{label}: expected KIND or KIND:PLACE with one of the kinds {', '.join(known)}, got {text!r}"
            f"{meant(kind, known)}"
        )
    return {"kind": kind, option: rest} if colon else {"kind": kind}
