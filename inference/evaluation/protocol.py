"""What is measured: which prompts, refiners, generators and judges, how many images, and from which seeds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from prip.errors import InputError

REFINERS = ("none", "random", "warmup", "rl", "best")
GENERATORS = ("diffusion", "renderer")
JUDGES = ("truth", "second_reward", "subject_accuracy")
SPLITS = ("test", "dev")
STEPS = (("none", "random"), ("none", "warmup"), ("warmup", "rl"))
"""Refiners that are tested against each other: (from, to)."""

FIRST_EVALUATION_SEED, FIRST_SEARCH_SEED = 3_000_000_000, 3_000_500_000
"""Training draws from seeds below 2**31, so none of these; `best` searches on seeds from the second on."""
SEEDS_PER_EVALUATION = 1_000_000
"""Evaluations with different `--seed` share no image seed."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is drawn, and how hard `best` searches."""

    per_combination: int = 2
    """Phrasings drawn for each subject-place combination; duplicates count once."""
    images_per_prompt: int = 2
    """Images of each prompt, from seeds of its own, the same for every refiner."""
    subjects: int | None = None
    """Measure so many subjects only, spread over all of them; null for all."""
    bootstrap_draws: int = 10_000
    """Resamplings of subjects behind each interval and p-value."""
    search_per: str = "prompt"
    """`prompt`: best searches for each prompt; `combination`: once for all phrasings of a combination."""
    search_images: int = 4
    """Images, from search seeds, behind the score of each candidate."""
    search_passes: int = 1
    """Passes of the coordinate ascent over all attributes."""
    search_wordings: int = 2
    """Modifiers tried for the chosen value of each attribute, after the ascent over values."""
    agreement_images: int = 512
    """Renders on which the judge truth is compared with the exact truth."""
    batch_size: int = 256
    """Images that are drawn and judged at a time."""

    def __post_init__(self) -> None:
        for name, least in (
            ("per_combination", 1),
            ("images_per_prompt", 1),
            ("bootstrap_draws", 100),
            ("search_images", 1),
            ("search_passes", 0),
            ("search_wordings", 1),
            ("agreement_images", 2),
            ("batch_size", 1),
        ):
            _check_whole(name, getattr(self, name), least)
        if self.subjects is not None:
            _check_whole("subjects", self.subjects, 2)
        if self.search_per not in ("prompt", "combination"):
            raise InputError(f"search_per must be prompt or combination, it is {self.search_per!r}")


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, it is {value!r}")


def read_settings(config: str, **changes: Any) -> EvaluationSettings:
    """Return the settings of a preset by name or of a YAML file; `changes` that are not None override them.

    Raises InputError when there is no such preset or file, it is no mapping, or a field is unknown or out of range.
    """
    import yaml

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
    known_fields = [field.name for field in fields(EvaluationSettings)]
    unknown = sorted(str(name) for name in values if name not in known_fields)
    if unknown:
        raise InputError(
            f"config {config!r} has unknown fields: {', '.join(unknown)}; known: {', '.join(known_fields)}"
        )
    return EvaluationSettings(**{**values, **{name: value for name, value in changes.items() if value is not None}})


@dataclass(frozen=True)
class Prompt:
    """A user prompt with what it belongs to."""

    text: str
    subject: str
    combination: str
    """Subject and place: its phrasings and images are averaged before anything else."""


def evaluation_prompts(split: str, settings: EvaluationSettings, seed: int) -> list[Prompt]:
    """Return the user prompts of a split of the miniature. Raises InputError for an unknown split."""
    from prip.miniature.prompts import user_prompts
    from prip.miniature.scene import parse

    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, it is {split!r}")
    rows = user_prompts(split, settings.per_combination, seed)
    subjects = list(dict.fromkeys(subject for _, subject in rows))
    if settings.subjects is not None and settings.subjects < len(subjects):
        spread = np.linspace(0, len(subjects) - 1, settings.subjects).round().astype(int)
        subjects = [subjects[i] for i in spread]
    kept = set(subjects)
    return [Prompt(text, name, f"{name}/{parse(text)['place']}") for text, name in rows if name in kept]


def check_seed(seed: int) -> int:
    """Return the seed of an evaluation. Raises InputError when it is negative."""
    if seed < 0:
        raise InputError(f"seed must be at least 0, it is {seed}")
    return seed


def image_seeds(first: int, count: int, seed: int) -> list[int]:
    """Return `count` image seeds of an evaluation, from `first` (evaluation or search) on.

    Raises InputError when there are not so many: the next block belongs to something else.
    """
    room = FIRST_SEARCH_SEED - FIRST_EVALUATION_SEED
    if count > room:
        raise InputError(f"an evaluation has {room:,} image seeds, {count:,} were wanted: draw fewer images")
    start = first + SEEDS_PER_EVALUATION * check_seed(seed)
    return list(range(start, start + count))
