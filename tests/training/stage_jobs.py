"""The two warm-up stages at a size of seconds, for runs whose results are compared, in one process or several."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

from prip.training import decoder, encoder
from prip.training.settings import (
    DecoderSettings,
    EncoderSettings,
    LlamaSizes,
    LoopSettings,
    OptimizerSettings,
    T5Sizes,
)

T5 = T5Sizes(vocab_size=280, d_model=16, d_ff=16, layers=1, heads=2)
LLAMA = LlamaSizes(vocab_size=280, hidden_size=16, intermediate_size=16, layers=1, heads=2)
STAGES: dict[str, Any] = {
    "encoder": (encoder, encoder.EncoderModule, EncoderSettings, {"sizes": T5}),
    "decoder": (decoder, decoder.DecoderModule, DecoderSettings, {"sizes": LLAMA}),
}


def train_stage(
    stage: str, run: Path, data: Path, *, loop: dict[str, Any] | None = None, exit_at: int | None = None, **options: Any
) -> dict[str, Any]:
    """Trains a stage for six steps of eight examples and returns its metrics.

    loop: what differs in LoopSettings. options: what differs in the settings. exit_at: the batch at whose beginning
    every process ends at once, as a killed one would.
    """
    module, kind, settings, sizes = STAGES[stage]
    if exit_at is not None:
        real = kind.training_step

        def training_step(self: Any, batch: Any, step: int) -> Any:
            if step == exit_at:
                os._exit(0)
            return real(self, batch, step)

        kind.training_step = training_step
    rhythm = {"steps": 6, "batch_size": 8, "log_every": 1, "validate_every": 2, "checkpoint_every": 2}
    common: dict[str, Any] = {"run": run, "data": data, "device": "cpu", "progress": False, "word_dropout": 0.2}
    common["optimizer"] = OptimizerSettings(lr=1e-2, warmup_steps=2, schedule="cosine", clip=0.05)
    return module.run(settings(**(common | sizes | options), loop=LoopSettings(**(rhythm | (loop or {})))))


def logged(run: Path, stage: str) -> list[dict[str, float]]:
    """Returns the rows of a run's metrics.csv."""
    with (run / stage / "logs" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
