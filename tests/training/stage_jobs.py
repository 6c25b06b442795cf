"""The two warm-up stages at a size of seconds, for runs whose results are compared, in one process or several."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from prip.training.settings import (
    DecoderSettings,
    EncoderSettings,
    LlamaSizes,
    LoopSettings,
    OptimizerSettings,
    T5Sizes,
)
from prip.training.warmup import decoder, encoder

T5 = T5Sizes(vocab_size=280, d_model=16, d_ff=16, layers=1, heads=2)
LLAMA = LlamaSizes(vocab_size=280, hidden_size=16, intermediate_size=16, layers=1, heads=2)
STAGES: dict[str, Any] = {
    "encoder": (encoder, encoder.EncoderModule, EncoderSettings, {"sizes": T5}),
    "decoder": (decoder, decoder.DecoderModule, DecoderSettings, {"sizes": LLAMA}),
}


def train_stage(
    stage: str, run: Path, data: Path, *, loop: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Trains a stage for six steps of eight examples and returns its metrics.

    loop: what differs in LoopSettings. options: what differs in the settings.
    """
    module, _, settings, sizes = STAGES[stage]
    rhythm = {"steps": 6, "batch_size": 8, "log_every": 1, "validate_every": 2, "checkpoint_every": 2}
    common: dict[str, Any] = {"run": run, "data": data, "device": "cpu", "progress": False, "word_dropout": 0.2}
    common["optimizer"] = OptimizerSettings(lr=1e-2, warmup_steps=2, schedule="cosine", clip=0.05)
    return module.run(settings(**(common | sizes | options), loop=LoopSettings(**(rhythm | (loop or {})))))


class Cut(BaseException):
    """Ends a run where it stands."""


def cut_stage(stage: str, run: Path, data: Path, *, at: int, **options: Any) -> None:
    """Does what train_stage does, and breaks off where batch number `at` begins, in all processes."""
    kind = STAGES[stage][1]
    real = kind.training_step

    def training_step(self: Any, batch: Any, step: int) -> Any:
        if step == at:
            raise Cut
        return real(self, batch, step)

    kind.training_step = training_step
    try:
        train_stage(stage, run, data, **options)
    except Cut:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process may still be bringing its files to the disk
    else:
        raise AssertionError(f"{stage} came to its end")
    finally:
        kind.training_step = real


def logged(run: Path, stage: str) -> list[dict[str, float]]:
    """Returns the rows of a run's metrics.csv."""
    with (run / stage / "logs" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
