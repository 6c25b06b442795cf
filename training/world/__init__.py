"""`prip-train world`: train the miniature's frozen parts, or take a checkpoint's, and write its prompts and log.

Each part is a stage of its own under RUN/world; RUN/parts then has the layout of a checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from prip.errors import InputError
from prip.files import hash_of, replace_folder, replace_text
from prip.generators.diffusion import DiffusersGenerator
from prip.miniature.prompts import SEEN_SPLITS, SPLITS, system_prompt, user_prompts
from prip.miniature.reader import Reader
from prip.randomness import random_generator

from ..runs.run_folder import stage_folder
from ..settings import WorldSettings
from ..settings.world import PARTS, TAKEN
from .from_checkpoint import take_parts
from .generator import GeneratorPart, TextEncoderPart, measure_obedience
from .log import write_log
from .part import Part, part_folder
from .pivots import PivotEncoderPart, ReaderPart
from .rewards import HpsLikeRewardPart, RewardPart

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a part is trained."""

    part: type[Part]
    splits: tuple[str, ...] = SEEN_SPLITS
    """Splits whose subject-place combinations it learns from."""
    begins_with: str | None = None
    """Part whose weights it starts from."""


RECIPES = {
    "reader_a": Recipe(ReaderPart, SPLITS),
    "reader_b": Recipe(ReaderPart, SPLITS),
    "reader_c": Recipe(ReaderPart, SPLITS),
    "trunk": Recipe(ReaderPart),
    "mini-reward": Recipe(RewardPart, begins_with="trunk"),
    "mini-hps": Recipe(HpsLikeRewardPart, begins_with="trunk"),
    "second_reward": Recipe(RewardPart, SPLITS, begins_with="reader_c"),
    "pivot_encoder": Recipe(PivotEncoderPart, begins_with="trunk"),
    "text_encoder": Recipe(TextEncoderPart, SPLITS),
    "generator": Recipe(GeneratorPart, SPLITS, begins_with="text_encoder"),
}
"""All parts in training order. Generator and judges know the combinations of all splits, as image models do; rewards
and pivot encoder, which the refiner learns from, do not know those of the test split."""

PLACES_IN_CHECKPOINT = {
    "reader_a": "readers/a",
    "reader_b": "readers/b",
    "second_reward": "readers/c",
    "mini-reward": "rewards/mini-reward",
    "mini-hps": "rewards/mini-hps",
    "pivot_encoder": "pivot_encoder",
    "generator": "generator",
}
"""Paths of the parts in a checkpoint; reader C is part of the second reward, as its trunk."""


def run(settings: WorldSettings) -> dict[str, Any]:
    """Train `settings.parts`, or take those of `settings.checkpoint`, write the prompts and the log, and return the
    metrics. Raise InputError if the run has parts of the other kind."""
    check_origin(settings)
    if settings.checkpoint is not None:
        obedience = take_parts(settings, settings.checkpoint)
        write_texts(settings)
        return {"obedience": obedience}
    metrics: dict[str, Any] = {}
    for name, recipe in RECIPES.items():
        if name in settings.parts:
            needed = {other: hash_of(part_folder(settings, other)) for other in filter(None, [recipe.begins_with])}
            folder = stage_folder(replace(settings, parts=PARTS), f"world/{name}", needed)
            finished = folder / "metrics.json"
            if finished.is_file():
                metrics[name] = json.loads(finished.read_text(encoding="utf-8"))
            else:
                metrics[name] = recipe.part(name, settings, recipe.splits, recipe.begins_with).fit(folder)
    write_texts(settings)
    trained = [name for name in PLACES_IN_CHECKPOINT if (settings.run / "world" / name / "metrics.json").is_file()]
    if len(trained) == len(PLACES_IN_CHECKPOINT):
        metrics["obedience"] = assemble(settings)
    return metrics


def check_origin(settings: WorldSettings) -> None:
    """Raise InputError if the run has trained parts and the settings name a checkpoint, or the reverse."""
    world = settings.run / "world"
    if settings.checkpoint is None and (world / TAKEN).exists():
        raise InputError(f"run: expected one without parts of a checkpoint, got {world / TAKEN}")
    trained = [name for name in PARTS if (world / name).exists()]
    if settings.checkpoint is not None and trained:
        raise InputError(f"checkpoint: expected a run without trained parts, got {', '.join(trained)} in {world}")


def write_texts(settings: WorldSettings) -> None:
    """Write RUN/parts/prompts and RUN/parts/log."""
    write_prompts(settings)
    write_log(settings.run / "parts" / "log", settings.log_users, settings.log_sessions, settings.seed)


def write_prompts(settings: WorldSettings) -> None:
    """Write RUN/parts/prompts: user prompts of all splits, and system prompts of train and dev."""
    rows = [
        {"user_prompt": prompt, "subject": subject, "split": split}
        for split in SPLITS
        for prompt, subject in user_prompts(split, settings.user_phrasings, settings.seed, open_place=split == "train")
    ]
    system = []
    for index in range(settings.system_prompts):
        split = "dev" if index % 10 == 0 else "train"
        generator = random_generator("system prompts", settings.seed, index)
        system.append({"system_prompt": system_prompt(split, generator), "split": split})

    def fill(folder: Path) -> None:
        pd.DataFrame(rows).to_parquet(folder / "user_prompts.parquet", index=False)
        pd.DataFrame(system).drop_duplicates("system_prompt").to_parquet(folder / "system_prompts.parquet", index=False)

    replace_folder(settings.run / "parts" / "prompts", fill)


def assemble(settings: WorldSettings) -> dict[str, float]:
    """Copy the parts to a checkpoint's layout, and measure and log the generator's prompt following."""
    for name, place in PLACES_IN_CHECKPOINT.items():
        copy = partial(shutil.copytree, part_folder(settings, name), dirs_exist_ok=True)
        replace_folder(settings.run / "parts" / place, copy)
    device = None if settings.device == "auto" else settings.device
    generator = DiffusersGenerator.from_pretrained(str(settings.run / "parts" / "generator"), device)
    reader = Reader.from_pretrained(settings.run / "parts" / "readers" / "a")
    shares = measure_obedience(generator, reader, settings.obedience_drawings)
    replace_text(settings.run / "parts" / "generator" / "obedience.json", json.dumps(shares, indent=2) + "\n")
    lines = [f"  {factor:12} {share:.3f}" for factor, share in shares.items()]
    _log.info("\n".join([f"obedience, on {settings.obedience_drawings} drawings of held-out prompts:", *lines]))
    return shares
