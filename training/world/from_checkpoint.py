"""The world's parts from a checkpoint, with a record of their origin."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prip.errors import CheckpointError
from prip.files import hash_of, replace_folder
from prip.generators.diffusion import DiffusersGenerator
from prip.hub.names import hub_files
from prip.loading.folders import whole_folder
from prip.miniature.judges import load_judges
from prip.miniature.reader import Reader
from prip.pivot_encoders.qformer import QFormerPivotEncoder
from prip.rewards.prompt_reward import PromptReward

from ..runs.run_folder import stage_folder, write_metrics
from ..settings import RunSettings, WorldSettings
from ..settings.world import TAKEN

_log = logging.getLogger(__name__)
FOLDERS = ("generator", "pivot_encoder", "rewards", "readers")
"""Folders taken from a checkpoint into RUN/parts."""


@dataclass(frozen=True, kw_only=True)
class TakenSettings(RunSettings):
    """The settings of world that matter for parts from a checkpoint."""

    checkpoint: str
    system_prompts: int
    user_phrasings: int


def take_parts(settings: WorldSettings, checkpoint: str) -> dict[str, float]:
    """Fill RUN/parts from `checkpoint`, record it in RUN/world/checkpoint, and return the generator's obedience.

    Raise CheckpointError if the checkpoint does not exist, lacks a part or does not load.
    """
    root = whole_folder(checkpoint, choose=_choose)
    needed = [root / folder for folder in FOLDERS] + [root / "generator" / "obedience.json"]
    missing = [path.relative_to(root).as_posix() for path in needed if not path.exists()]
    if missing:
        raise CheckpointError(
            f"checkpoint: expected one of prip-train export, got {checkpoint!r} without {', '.join(missing)}"
        )
    check_parts(root)
    taken = TakenSettings(
        run=settings.run,
        seed=settings.seed,
        resume=settings.resume,
        overwrite=settings.overwrite,
        checkpoint=checkpoint,
        system_prompts=settings.system_prompts,
        user_phrasings=settings.user_phrasings,
    )
    hashes = {folder: hash_of(root / folder) for folder in FOLDERS}
    record = stage_folder(taken, f"world/{TAKEN}", hashes)
    for folder in FOLDERS:
        replace_folder(settings.run / "parts" / folder, partial(_copy, root / folder))
    obedience = json.loads((root / "generator" / "obedience.json").read_text(encoding="utf-8"))
    facts = {"checkpoint": checkpoint, "sha256": hashes, "obedience": obedience}
    write_metrics(record, facts)
    _log.info("world: %s of %s copied to %s", ", ".join(FOLDERS), checkpoint, settings.run / "parts")
    return obedience


def check_parts(root: Path) -> None:
    """Load every part of a checkpoint. Raise CheckpointError if one is missing or does not load."""
    DiffusersGenerator.from_pretrained(str(root / "generator"), "cpu")
    QFormerPivotEncoder.from_pretrained(root / "pivot_encoder")
    rewards = sorted(path for path in (root / "rewards").iterdir() if path.is_dir())
    if not rewards:
        raise CheckpointError(f"{root / 'rewards'}: expected at least one reward, got none")
    for reward in rewards:
        PromptReward.from_pretrained(reward)
    Reader.from_pretrained(root / "readers" / "a")
    load_judges(root / "readers", "cpu")


def _choose(names: Sequence[str]) -> list[str]:
    return [name for name in hub_files(names) if name.startswith(tuple(f"{folder}/" for folder in FOLDERS))]


def _copy(source: Path, target: Path) -> None:
    for name in hub_files(
        [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
    ):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
