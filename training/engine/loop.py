"""The training loop of all stages: exact resume, and the best part by the dev split.

A stage is a StageModule and a call of `train`. Batches and randomness are functions of (seed, stage, step, rank), so a
run that was killed continues as if it had never stopped.

Several processes run the same code. Each measures its share of the dev split; only the first writes into the run.
"""

from __future__ import annotations

import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from torch.utils.data import DataLoader, Dataset, Sampler

from prip.errors import InputError
from prip.files import replace_file

from ..runs.processes import process_rank
from ..runs.run_folder import finished_metrics, write_metrics
from ..settings import LoopSettings, RunSettings, TrainSettings
from .callbacks import NonFiniteGuard, StageLoop
from .csv_log import CsvLogger
from .sharding import build_strategy, number_of_weights, plain_checkpoint, processes_of, stage_of
from .stage_module import StageModule

_log = logging.getLogger(__name__)
_ACCELERATORS = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
_EXPECTED_WARNINGS = (
    ".*does not have many workers.*",
    ".*is smaller than the logging interval.*",
    ".*dataloader is not resumable.*",
    ".*GPU available but not used.*",
    ".*module.*in eval mode at the start of training.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
)


def train(
    module: StageModule,
    settings: RunSettings,
    loop: LoopSettings,
    folder: Path,
    *,
    monitor: str,
    mode: Literal["min", "max"],
    clip: float = 0.0,
) -> dict[str, Any]:
    """Train `module` for loop.steps steps, or for those that remain, and return the contents of metrics.json.

    With settings.devices above 1, Lightning starts the other processes with the command of this one, unless torchrun or
    Slurm has already started them.

    Args:
        module: The stage.
        settings: Its settings.
        loop: Length and intervals of the training.
        folder: From `stage_folder`.
        monitor: Entry of `module.evaluate()` that chooses the best part, exported to folder/part.
        mode: Whether that entry should be small or large.
        clip: Maximum gradient norm, 0 for none; under manual optimization the module clips with `clipped_step`.

    Raises:
        NonFiniteError: A loss or a gradient is not finite; the batch is saved.
        InputError: The checkpoint cannot be resumed with these settings.
    """
    if (settings.resume or not process_rank()) and (finished := finished_metrics(folder)) is not None:
        return finished
    guard = NonFiniteGuard(module.stage, folder / "state")
    progress = StageLoop(module, loop, settings.seed, folder, monitor, mode)
    manual = not module.automatic_optimization
    strategy: Strategy | Literal["auto"] = "auto"
    if isinstance(settings, TrainSettings):
        strategy = build_strategy(settings, loop.batch_size, clip, manual)
    checkpoint = _checkpoint(module, settings, progress) if settings.resume else None
    if loop.accumulate > 1 and manual:
        raise InputError(
            f"accumulate: expected 1 for {module.stage}, which takes several steps per batch, got {loop.accumulate}"
        )
    batches = _StepBatches(module, loop.steps * loop.accumulate)
    data: DataLoader[Any] = DataLoader(batches, None, sampler=_RemainingBatches(progress))
    module.strict_loading = False
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        callbacks: list[Callback] = [guard, progress]
        trainer = _trainer(settings, loop, folder, callbacks, clip=0.0 if manual else clip, strategy=strategy)
        try:
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as stop:
            if trainer.interrupted:  # Lightning leaves the interpreter on Ctrl-C
                raise KeyboardInterrupt from stop
            raise
    parameters = list(module.parameters())
    metrics = {
        "stage": module.stage,
        "steps": loop.steps,
        "best_step": progress.best_step,
        "best": progress.best_metrics,
        "last": progress.last_metrics,
        **({"confirmed": progress.confirmed} if progress.confirmed else {}),
        "trained_parameters": sum(number_of_weights(value) for value in parameters if value.requires_grad),
        "parameters": sum(number_of_weights(value) for value in parameters),
        "seconds": round(progress.seconds, 1),
        **module.facts(),
    }
    if trainer.is_global_zero:
        write_metrics(folder, metrics)
    _log.info(
        "%s: best %s %.6g after step %d", module.stage, monitor, progress.best_metrics[monitor], progress.best_step
    )
    return metrics


def _checkpoint(module: StageModule, settings: RunSettings, progress: StageLoop) -> Path | None:
    """Return the checkpoint to resume from, or None; a sharded one is converted for other strategies."""
    plain, sharded = progress.checkpoint_path, progress.sharded_path
    zero = isinstance(settings, TrainSettings) and settings.strategy.startswith("deepspeed")
    if not zero:
        if sharded.exists() and not process_rank():
            checkpoint = plain_checkpoint(sharded, module)
            replace_file(plain, lambda path: torch.save(checkpoint, path))
            shutil.rmtree(sharded)
        return plain if plain.exists() or sharded.exists() else None
    assert isinstance(settings, TrainSettings)
    if plain.exists():
        raise InputError(f"strategy: expected auto or ddp to resume {plain}, got {settings.strategy}")
    if not sharded.exists():
        return None
    written_by = f"{processes_of(sharded)} devices with deepspeed-{stage_of(sharded)}"
    requested = f"{settings.devices} devices with {settings.strategy}"
    if requested != written_by:
        raise InputError(
            f"devices, strategy: expected {written_by}, which wrote {sharded}, or else auto or ddp, got {requested}"
        )
    return sharded


def _trainer(
    settings: RunSettings,
    loop: LoopSettings,
    folder: Path,
    callbacks: list[Callback],
    *,
    clip: float,
    strategy: Strategy | Literal["auto"],
) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    refresh_rate = 1 if sys.stderr.isatty() else max(1, loop.steps // 10)
    if settings.progress:
        callbacks = [*callbacks, TQDMProgressBar(refresh_rate=refresh_rate)]
    return L.Trainer(
        accelerator=_ACCELERATORS[settings.device],
        devices=settings.devices if isinstance(settings, TrainSettings) else 1,
        strategy=strategy,
        precision=loop.precision,
        max_epochs=1,
        limit_val_batches=0,
        log_every_n_steps=loop.log_every,
        gradient_clip_val=clip or None,
        accumulate_grad_batches=loop.accumulate,
        logger=[TensorBoardLogger(folder, "logs", ""), CsvLogger(folder / "logs" / "metrics.csv")],
        callbacks=callbacks,
        enable_progress_bar=settings.progress,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


class _StepBatches(Dataset[Any]):
    def __init__(self, module: StageModule, count: int) -> None:
        self._module, self._count = module, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        return self._module.batch_at(number)


class _RemainingBatches(Sampler[int]):
    """Numbers of the remaining batches. Its length counts all batches, as Lightning expects in a resumed epoch."""

    def __init__(self, progress: StageLoop) -> None:
        self._progress = progress

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._progress.steps_done * self._progress.loop.accumulate, len(self)))

    def __len__(self) -> int:
        return self._progress.loop.steps * self._progress.loop.accumulate
