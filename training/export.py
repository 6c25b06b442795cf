"""`prip-train export`: a run's parts as one checkpoint in fp16, with the record of its making and a model card."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch

from prip.errors import InputError
from prip.files import replace_folder, replace_text
from prip.generators.diffusion import DiffusersGenerator
from prip.miniature.reader import Reader
from prip.modeling import PreferenceEncoder, PripModel
from prip.pivot_encoders.qformer import QFormerPivotEncoder
from prip.processing import PripProcessor, load_tokenizer, save_tokenizer
from prip.rewards.prompt_reward import PromptReward

from .runs.refiner_folder import portable, publish_folder, training_record
from .settings import ExportSettings
from .settings.world import PARTS, TAKEN
from .world.model_card import model_card

_log = logging.getLogger(__name__)
RECORDED_STAGES = (*(f"world/{part}" for part in (*PARTS, TAKEN)), "prepare", "encoder", "decoder", "rl")


def run(settings: ExportSettings) -> dict[str, Any]:
    """Writes the checkpoint and returns its size in MB. Raises InputError where a part of the run is missing."""
    refiner, parts = settings.run / "rl" / "refiner", settings.run / "parts"
    for folder in (
        refiner,
        settings.run / "encoder" / "part",
        parts / "generator",
        parts / "generator" / "obedience.json",
        parts / "pivot_encoder",
        parts / "readers",
        parts / "rewards",
    ):
        if not folder.exists():
            raise InputError(f"run: expected a run with all its stages done, but {folder} is missing")
    if settings.evaluation is not None and not settings.evaluation.is_file():
        raise InputError(f"evaluation: expected summary.json of prip evaluate, there is none at {settings.evaluation}")
    if settings.to.exists() and any(settings.to.iterdir()) and not (settings.to / "training.json").is_file():
        raise InputError(f"to: expected a new folder or an earlier checkpoint to replace, {settings.to} is neither")
    evaluation = settings.evaluation or settings.run / "evaluation" / "summary.json"
    figures = json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.is_file() else None

    def write(folder: Path) -> None:
        model = PripModel.from_pretrained(refiner).to(torch.float16)
        model.save_pretrained(folder / "refiner")
        PripProcessor.from_pretrained(refiner).save_pretrained(folder / "refiner")
        warmup = settings.run / "encoder" / "part"
        PreferenceEncoder.from_pretrained(warmup).half().save_pretrained(folder / "warmup" / "encoder")
        save_tokenizer(load_tokenizer(warmup), folder / "warmup" / "encoder")
        write_generator(parts / "generator", folder / "generator")
        pivot_encoder = QFormerPivotEncoder.from_pretrained(parts / "pivot_encoder")
        pivot_encoder.half().save_pretrained(folder / "pivot_encoder")
        for source in sorted((parts / "rewards").iterdir()):
            PromptReward.from_pretrained(source).half().save_pretrained(folder / "rewards" / source.name)
        for name in ("a", "b"):
            Reader.from_pretrained(parts / "readers" / name).half().save_pretrained(folder / "readers" / name)
        PromptReward.from_pretrained(parts / "readers" / "c").half().save_pretrained(folder / "readers" / "c")
        record = training_record(
            settings.run,
            {stage: settings.run / stage for stage in RECORDED_STAGES},
            sorted([*(settings.run / "data").glob("*.parquet"), *(parts / "prompts").glob("*.parquet")]),
        )
        obedience = json.loads((parts / "generator" / "obedience.json").read_text(encoding="utf-8"))
        record["obedience"] = obedience
        if figures is not None:
            record["evaluation"] = portable(figures, settings.run)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        for place in (folder, folder / "refiner"):
            replace_text(place / "training.json", text)
            replace_text(place / "README.md", model_card(obedience, figures))

    replace_folder(settings.to, write)
    if settings.push_to_hub is not None:
        publish_folder(settings.to, settings.push_to_hub, settings.private)
    megabytes = sum(file.stat().st_size for file in settings.to.rglob("*") if file.is_file()) / 1e6
    _log.info("export: %s, %.1f MB", settings.to, megabytes)
    return {"megabytes": round(megabytes, 2)}


def write_generator(source: Path, target: Path) -> None:
    """Copies a generator with its networks in fp16, and the file of its obedience."""
    generator = DiffusersGenerator.from_pretrained(str(source), device="cpu")
    for part in generator.pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.half()
    generator.save_pretrained(target)
    shutil.copy(source / "obedience.json", target / "obedience.json")
