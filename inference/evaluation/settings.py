"""What an evaluation measures: which prompts, refiners, generators and scorers, and how much is drawn."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from prip.errors import InputError
from prip.options import check_whole

from .kinds.registry import EMBEDDERS, GENERATORS, PROMPT_SETS, REFINERS, SCORERS, check_entry

Entry = Mapping[str, Any]
"""A kind and its options."""

NONE = "none"
"""The refiner that every other one is compared with."""
ROLES = ("trained against", "held out", "fidelity")
"""What a scorer is in the tables: a reward that the refiner learned from, one that it did not, or one that tells
whether the image still shows what the user asked for."""
EXTENDS = "extends"
_SECTIONS = ("refiners", "generators", "scorers")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """The settings of an evaluation; `inference/evaluation/kinds/registry.py` says which kinds there are."""

    prompts: Entry = field(default_factory=lambda: {"kind": "miniature"})
    """The prompt set."""
    refiners: Mapping[str, Entry] = field(default_factory=dict)
    """By the name that tables call them; `none` is always in."""
    generators: Mapping[str, Entry] = field(default_factory=dict)
    """By name. `seen`: whether the refiner was trained against it (default true)."""
    scorers: Mapping[str, Entry] = field(default_factory=dict)
    """By name. `role`: one of ROLES (default held out)."""
    comparisons: Sequence[Sequence[str]] = ()
    """Pairs that are tested against each other: (from, to), two refiners on each generator, or two REFINER@GENERATOR,
    which may differ in either."""
    embedder: Entry | None = None
    """What turns images into vectors, by which diversity is measured; null does without."""
    agreement_renders: int = 0
    """Renders on which the miniature's judge truth is compared with the exact truth; 0 does without."""
    images_per_prompt: int = 4
    """Images of each user prompt, from seeds of its own, the same for every refiner."""
    prompt_limit: int = 0
    """At most so many prompts, spread over the whole set; 0 takes all."""
    bootstrap_draws: int = 10_000
    """Resamplings of clusters behind each interval and p-value."""
    chunk: int = 64
    """User prompts that are refined, drawn and scored between two saved parts: what a run that is killed may lose, and
    what bounds its memory."""
    batch_size: int = 256
    """Images that are drawn and scored at a time."""

    def __post_init__(self) -> None:
        for name, least in (
            ("agreement_renders", 0),
            ("images_per_prompt", 1),
            ("prompt_limit", 0),
            ("bootstrap_draws", 100),
            ("chunk", 1),
            ("batch_size", 1),
        ):
            check_whole(name, getattr(self, name), least)
        for name in _SECTIONS:
            entries = getattr(self, name)
            if not isinstance(entries, Mapping):
                raise InputError(f"{name} must map names to kinds, it is {entries!r}")
            for own, entry in entries.items():
                if not isinstance(entry, Mapping):
                    raise InputError(f"{name}: wanted a kind and its options for {own!r}, got {entry!r}")
        object.__setattr__(self, "refiners", {NONE: {"kind": "none"}, **self.refiners})
        check_entry("prompts", "prompts", self.prompts, PROMPT_SETS)
        if self.embedder is not None:
            check_entry("embedder", "embedder", self.embedder, EMBEDDERS)
        for name, entry in self.refiners.items():
            _check_name("refiners", name)
            check_entry("refiner", name, entry, REFINERS)
        for name, entry in self.generators.items():
            _check_name("generators", name)
            check_entry("generator", name, without(entry, "seen"), GENERATORS)
            if not isinstance(entry.get("seen", True), bool):
                raise InputError(f"generator {name!r}: seen must be true or false, it is {entry['seen']!r}")
        for name, entry in self.scorers.items():
            _check_name("scorers", name)
            check_entry("scorer", name, without(entry, "role"), SCORERS)
            if entry.get("role", ROLES[1]) not in ROLES:
                raise InputError(f"scorer {name!r}: role must be one of {', '.join(ROLES)}, it is {entry['role']!r}")
        if not self.generators or not self.scorers:
            raise InputError("generators and scorers: wanted at least one of each")
        if isinstance(self.comparisons, str) or not isinstance(self.comparisons, Sequence):
            raise InputError(f"comparisons must be pairs of refiners, {self.comparisons!r} came")
        for pair in self.comparisons:
            self._check_pair(pair)

    def _check_pair(self, pair: object) -> None:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InputError(f"comparisons must be pairs of refiners, {pair!r} came")
        sides = [side(name) for name in pair]
        unknown = [str(refiner) for refiner, _ in sides if refiner not in self.refiners]
        if unknown:
            raise InputError(f"comparisons must be of {', '.join(self.refiners)}; {', '.join(unknown)} came")
        places = [generator for _, generator in sides if generator is not None]
        unknown = [generator for generator in places if generator not in self.generators]
        if unknown:
            raise InputError(f"comparisons must be on {', '.join(self.generators)}; {', '.join(unknown)} came")
        if len(places) == 1:
            raise InputError(f"comparisons must name the generator of both sides or of none, {list(pair)} came")

    def selected(
        self,
        refiners: Sequence[str] | None = None,
        generators: Sequence[str] | None = None,
        scorers: Sequence[str] | None = None,
    ) -> EvaluationSettings:
        """Returns the settings with these refiners, generators and scorers alone; None keeps all, and `none` stays.
        A comparison goes with its refiners and generators.

        Raises InputError for a name that the settings lack.
        """
        kept = {
            "refiners": _chosen("refiners", self.refiners, refiners, always=(NONE,)),
            "generators": _chosen("generators", self.generators, generators),
            "scorers": _chosen("scorers", self.scorers, scorers),
        }
        comparisons = [
            pair
            for pair in self.comparisons
            if all(
                refiner in kept["refiners"] and (generator is None or generator in kept["generators"])
                for refiner, generator in map(side, pair)
            )
        ]
        return replace(self, comparisons=comparisons, **kept)  # type: ignore[arg-type]


def side(name: str) -> tuple[str, str | None]:
    """Returns the refiner of one side of a comparison, and the generator where it names one."""
    refiner, at, generator = str(name).partition("@")
    return refiner, generator if at else None


def without(entry: Entry, *names: str) -> dict[str, Any]:
    """Returns an entry less the options `names`."""
    return {option: value for option, value in entry.items() if option not in names}


def _check_name(section: str, name: object) -> None:
    """Names become columns and folders."""
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & set('/\\:*?"<>|@\0\n'):
        raise InputError(f"{section}: wanted names without slashes, colons and @, got {name!r}")


def _chosen(
    section: str, known: Mapping[str, Entry], wanted: Sequence[str] | None, always: Collection[str] = ()
) -> dict[str, Entry]:
    if wanted is None:
        return dict(known)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise InputError(f"{section} must be of {', '.join(known)}; {', '.join(unknown)} came")
    return {name: entry for name, entry in known.items() if name in wanted or name in always}


def read_settings(config: str, **changes: Any) -> EvaluationSettings:
    """Returns the settings of a preset by name or of a YAML file; `changes` that are not None override them.

    A config may begin with the settings of another: `extends: NAME`; its refiners, generators and scorers are added.
    Raises InputError when there is no such preset or file, it is no mapping, or a field is unknown or out of range.
    """
    values = _read(config, ())
    known = [one.name for one in fields(EvaluationSettings)]
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise InputError(f"config {config!r} has unknown fields: {', '.join(unknown)}; known: {', '.join(known)}")
    return EvaluationSettings(**{**values, **{name: value for name, value in changes.items() if value is not None}})


def _read(config: str, seen: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    if config in seen:
        raise InputError(f"config {config!r} extends itself: {' -> '.join((*seen, config))}")
    presets = resources.files("prip.inference").joinpath("configs")
    preset = presets.joinpath(f"{config}.yaml")
    path = preset if Path(config).name == config and preset.is_file() else Path(config)
    if not path.is_file():
        known = ", ".join(sorted(p.name.removesuffix(".yaml") for p in presets.iterdir() if p.name.endswith(".yaml")))
        raise InputError(f"config {config!r} is neither a preset ({known}) nor a file")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"config {config!r} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"config {config!r} must hold a mapping, it holds a {type(values).__name__}")
    base = values.pop(EXTENDS, None)
    if base is None:
        return values
    inherited = _read(str(base), (*seen, config))
    merged = {
        name: {**inherited.get(name, {}), **values[name]}
        for name in _SECTIONS
        if isinstance(values.get(name), dict) and isinstance(inherited.get(name, {}), dict)
    }
    return {**inherited, **values, **merged}
