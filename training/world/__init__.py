"""`prip-train world`: trains the miniature's frozen parts and writes its prompts.

Each part is a stage of its own under RUN/world; RUN/parts then holds them as a checkpoint does.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from prip.generators.diffusion import DiffusersGenerator
from prip.miniature.prompts import SPLITS, system_prompt, user_prompts
from prip.miniature.reader import Reader
from prip.miniature.scene import random_generator

from ..atomic import replace_folder, replace_text
from ..data.hashing import hash_of
from ..harness import stage_folder
from ..settings import WorldSettings
from ..settings.world import PARTS
from .generator import GeneratorPart, TextEncoderPart
from .obedience import measure_obedience
from .part import Part, part_folder
from .pivots import PivotEncoderPart
from .readers import ReaderPart
from .rewards import RewardPart

_log = logging.getLogger(__name__)

BUILDERS: dict[str, Callable[[str, WorldSettings], Part]] = {
    "reader_a": partial(ReaderPart, splits=SPLITS),
    "reader_b": partial(ReaderPart, splits=SPLITS),
    "reader_c": partial(ReaderPart, splits=SPLITS),
    "trunk": ReaderPart,
    "mini-reward": partial(RewardPart, trunk="trunk", score_mean=0.0, score_deviation=1.0),
    "mini-hps": partial(RewardPart, trunk="trunk", score_mean=27.0, score_deviation=2.0),
    "second_reward": partial(RewardPart, trunk="reader_c", score_mean=0.0, score_deviation=1.0, splits=SPLITS),
    "pivot_encoder": PivotEncoderPart,
    "text_encoder": partial(TextEncoderPart, splits=SPLITS),
    "generator": partial(GeneratorPart, splits=SPLITS),
}
"""How each part is made. Generator and judges know the combinations of all splits, as image models do; rewards and
pivot encoder, from which the refiner learns, do not know those of the test split."""

NEEDS = {
    "mini-reward": ("trunk",),
    "mini-hps": ("trunk",),
    "second_reward": ("reader_c",),
    "pivot_encoder": ("trunk",),
    "generator": ("text_encoder",),
}
"""Parts that a part begins with."""

PLACES_IN_CHECKPOINT = {
    "reader_a": "readers/a",
    "reader_b": "readers/b",
    "second_reward": "readers/c",
    "mini-reward": "rewards/mini-reward",
    "mini-hps": "rewards/mini-hps",
    "pivot_encoder": "pivot_encoder",
    "generator": "generator",
}
"""Where parts lie in a checkpoint; reader C is there as the trunk of the second reward."""


def run(settings: WorldSettings) -> dict[str, Any]:
    """Trains the parts that `settings.parts` names, writes the prompts, and returns all metrics."""
    metrics: dict[str, Any] = {}
    for name, build in BUILDERS.items():
        if name in settings.parts:
            needed = {other: hash_of(part_folder(settings, other)) for other in NEEDS.get(name, ())}
            folder = stage_folder(replace(settings, parts=PARTS), f"world/{name}", needed)
            finished = folder / "metrics.json"
            if finished.is_file():
                metrics[name] = json.loads(finished.read_text(encoding="utf-8"))
            else:
                metrics[name] = build(name, settings).fit(folder)
    write_prompts(settings)
    trained = [name for name in PLACES_IN_CHECKPOINT if (settings.run / "world" / name / "metrics.json").is_file()]
    if len(trained) == len(PLACES_IN_CHECKPOINT):
        metrics["obedience"] = assemble(settings)
    return metrics


def write_prompts(settings: WorldSettings) -> None:
    """Writes RUN/parts/prompts: user prompts of all splits, and system prompts for training and dev."""
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
    """Copies the parts to where a checkpoint has them, and measures and prints the generator's obedience."""
    for name, place in PLACES_IN_CHECKPOINT.items():
        copy = partial(shutil.copytree, part_folder(settings, name), dirs_exist_ok=True)
        replace_folder(settings.run / "parts" / place, copy)
    device = None if settings.device == "auto" else settings.device
    generator = DiffusersGenerator.from_pretrained(str(settings.run / "parts" / "generator"), device)
    reader = Reader.from_pretrained(settings.run / "parts" / "readers" / "a")
    shares = measure_obedience(generator, reader, settings.obedience_drawings)
    replace_text(settings.run / "parts" / "generator" / "obedience.json", json.dumps(shares, indent=2) + "\n")
    lines = [f"  {factor:12} {share:.3f}" for factor, share in shares.items()]
    _log.info("\n".join([f"obedience, {settings.obedience_drawings} drawings of held-out prompts:", *lines]))
    return shares
