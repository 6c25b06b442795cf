"""`prip-train export`: a run's parts as one checkpoint in fp16, with a training record and a model card."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from pathlib import Path
from typing import Any

import torch

from prip.errors import InputError
from prip.files import replace_folder, replace_text
from prip.generators.diffusion import DiffusersGenerator
from prip.hub.model_card import card_header, evaluation_tables
from prip.miniature.reader import Reader
from prip.miniature.vocabulary import ATTRIBUTES, NEUTRAL_MODIFIERS, PLACES, SUBJECTS
from prip.modeling import PreferenceEncoder, PripModel
from prip.pivot_encoders.qformer import QFormerPivotEncoder
from prip.processing import PripProcessor, load_tokenizer, save_tokenizer
from prip.rewards.prompt_reward import PromptReward

from .runs.refiner_folder import portable, publish_folder, training_record
from .runs.run_folder import log_held_lines
from .settings import ExportSettings
from .settings.world import PARTS, TAKEN

_log = logging.getLogger(__name__)
RECORDED_STAGES = (*(f"world/{part}" for part in (*PARTS, TAKEN)), "prepare", "encoder", "decoder", "rl")
CARD = """
# prip-mini

A complete PRIP in miniature: preference encoder, prompt decoder, and the frozen parts that they were trained against,
all small and trained from scratch by `prip-train` in a synthetic world. It is the embedded default of `prip.refine`.

## Intended use

First steps with PRIP, offline; development and tests on a CPU; ablations in minutes. It adds modifiers that many image
models know ("golden hour", "sharp focus"); its effect on them has not been measured.

## Out of scope

Refining prompts for a real image model where the result matters: it has never seen a photograph, and its preferences
are those of a synthetic world. It knows English only. For unknown subjects it adds what is preferred on average.
"""


def run(settings: ExportSettings) -> dict[str, Any]:
    """Write the checkpoint and return its size in MB. Raise InputError if a part of the run is missing."""
    refiner, warmup = settings.run / "rl" / "refiner", settings.run / "encoder" / "part"
    parts = settings.run / "parts"
    names = ("generator", "generator/obedience.json", "pivot_encoder", "readers", "rewards")
    for path in (refiner, warmup, *(parts / name for name in names)):
        if not path.exists():
            raise InputError(f"run: expected a run with all stages done, got one without {path}")
    if settings.evaluation is not None and not settings.evaluation.is_file():
        raise InputError(f"evaluation: expected summary.json of prip evaluate, got none at {settings.evaluation}")
    if settings.to.exists() and any(settings.to.iterdir()) and not (settings.to / "training.json").is_file():
        raise InputError(f"to: expected a new folder or an earlier checkpoint to replace, got {settings.to}")
    evaluation = settings.evaluation or settings.run / "evaluation" / "summary.json"
    figures = json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.is_file() else None

    log_held_lines()

    def write(folder: Path) -> None:
        model = PripModel.from_pretrained(refiner).to(torch.float16)
        model.save_pretrained(folder / "refiner")
        PripProcessor.from_pretrained(refiner).save_pretrained(folder / "refiner")
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
        for target in (folder, folder / "refiner"):
            replace_text(target / "training.json", text)
            replace_text(target / "README.md", model_card(obedience, figures))

    replace_folder(settings.to, write)
    if settings.push_to_hub is not None:
        publish_folder(settings.to, settings.push_to_hub, settings.private)
    megabytes = sum(file.stat().st_size for file in settings.to.rglob("*") if file.is_file()) / 1e6
    try_it = shlex.join(["prip", "refine", "a cat", "--model", str(settings.to)])
    _log.info("export: wrote %s, %.1f MB; to try it: %s", settings.to, megabytes, try_it)
    return {"megabytes": round(megabytes, 2)}


def write_generator(source: Path, target: Path) -> None:
    """Copy a generator with its networks in fp16, and its obedience.json."""
    generator = DiffusersGenerator.from_pretrained(str(source), device="cpu")
    for part in generator.pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.half()
    generator.save_pretrained(target)
    shutil.copy(source / "obedience.json", target / "obedience.json")


def model_card(obedience: dict[str, float], evaluation: dict[str, Any] | None) -> str:
    """Return the model card in Markdown.

    Args:
        obedience: share of drawings that follow their prompt, by factor.
        evaluation: the content of summary.json of `prip evaluate`, if there is one.
    """
    lines = [card_header("apache-2.0") + CARD, "## Vocabulary", ""]
    lines.append(f"- {len(SUBJECTS)} subjects: {', '.join(subject.name for subject in SUBJECTS)}")
    lines.append(f"- {len(PLACES)} places: {', '.join(place.name for place in PLACES)}")
    for attribute, values in ATTRIBUTES.items():
        modifiers = ", ".join(modifier for value in values for modifier in value.modifiers)
        lines.append(f"- {attribute}: {modifiers}")
    lines.append(f"- without effect: {', '.join(NEUTRAL_MODIFIERS)}")
    lines += ["", "## Prompt following of its generator", "", "| factor | share of drawings |", "| --- | --- |"]
    lines += [f"| {factor} | {share:.3f} |" for factor, share in obedience.items()]
    if evaluation is not None:
        lines += ["", "## Evaluation", "", evaluation_tables(evaluation).rstrip()]
    lines += ["", "`training.json` has the settings, seeds and data hashes of its training.", ""]
    return "\n".join(lines)
