"""The Lightning callbacks of every stage: the loop around its steps, and the guard against NaN."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor
from torch.optim import Optimizer

from prip.errors import CheckpointError, PripError
from prip.files import replace_file, replace_folder

from ..runs.processes import process_rank
from ..runs.seeds import seed_everything
from ..settings import LoopSettings
from .sharding import whole_parameters
from .stage_module import StageModule


class NonFiniteError(PripError):
    """A loss, a gradient or a metric is NaN or infinite."""


class NonFiniteGuard(Callback):
    """Saves the batch and stops the stage before a loss or gradient that is not finite reaches the weights.

    Among several processes, the one with the bad loss saves its batch, and all stop at their common gradient. Under
    DeepSpeed that is after the step: the weights are then corrupt, but the run ends before they are saved.
    """

    def __init__(self, stage: str, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        self._batch: Any = None
        self._step = 0

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, step: int) -> None:
        self._batch, self._step = batch, step

    def on_before_backward(self, trainer: L.Trainer, module: L.LightningModule, loss: Tensor) -> None:
        self._check("loss", loss, stop=trainer.world_size == 1)

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Optimizer) -> None:
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            return  # its engine holds the gradients, and computes their norm in the step
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._check("gradient norm", norm)
        if module.automatic_optimization:
            module.log("gradient_norm", norm)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, step: int
    ) -> None:
        if not isinstance(trainer.strategy, DeepSpeedStrategy):
            return
        norm = trainer.strategy.deepspeed_engine.get_global_grad_norm()
        if norm is not None:
            self._check("gradient norm", torch.as_tensor(norm))
            if module.automatic_optimization:
                module.log("gradient_norm", torch.as_tensor(norm, dtype=torch.float32))

    def _check(self, name: str, value: Tensor, stop: bool = True) -> None:
        if torch.isfinite(value):
            return
        path = self._folder / (f"bad_batch_{self._step}" + (f"_{process_rank()}" if process_rank() else "") + ".pt")
        content = {"step": self._step, name: value.item(), "batch": self._batch}
        replace_file(path, lambda temporary: torch.save(content, temporary))
        if stop:
            raise NonFiniteError(
                f"{self._stage}: the {name} of step {self._step} is {value.item()}; its batch is in {path}"
            )


HISTORY = "history"
"""Folder of the parts exported at every validation, with loop.keep_parts."""


class StageLoop(Callback):
    """Seeds every step; after it validates, exports the best part and writes a checkpoint when due.

    In this order, a checkpoint includes everything up to its step. A module that starts trained is also measured before
    the first step, as the best part so far. No checkpoint follows the last step: metrics.json marks the stage as
    finished. The arguments are those of `train`.
    """

    def __init__(
        self,
        module: StageModule,
        loop: LoopSettings,
        seed: int,
        folder: Path,
        monitor: str,
        mode: Literal["min", "max"],
    ) -> None:
        self._module, self.loop, self._seed, self._folder = module, loop, seed, folder
        self._monitor, self._sign = monitor, {"min": 1.0, "max": -1.0}[mode]
        self.checkpoint_path = folder / "state" / "last.ckpt"
        self.sharded_path = folder / "state" / "last.zero"
        self.steps_done = 0
        self._seconds_before, self._began = 0.0, time.monotonic()
        self.best_step = -1
        self.best_metrics: dict[str, float] = {}
        self.last_metrics: dict[str, float] = {}
        self.confirmed: dict[str, dict[str, float]] = {}

    @property
    def seconds(self) -> float:
        """Seconds that the stage has taken, including those before an interruption."""
        return self._seconds_before + time.monotonic() - self._began

    def state_dict(self) -> dict[str, Any]:
        names = ("steps_done", "best_step", "best_metrics", "last_metrics", "seconds")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._seconds_before = state_dict["seconds"]
        for name in state_dict.keys() - {"seconds"}:
            setattr(self, name, state_dict[name])

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._module.starts_trained and not self.best_metrics:
            self._validate(trainer)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, step: int) -> None:
        seed_everything(self._seed, self._module.stage, step, trainer.global_rank)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, step: int
    ) -> None:
        if (step + 1) % self.loop.accumulate:
            return
        self.steps_done = (step + 1) // self.loop.accumulate
        last = self.steps_done == self.loop.steps
        if last or self.steps_done % self.loop.validate_every == 0:
            self._validate(trainer)
        if last:
            self._confirm(trainer)
        if not last and self.steps_done % self.loop.checkpoint_every == 0:
            self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint. All processes take part; the first moves it into place."""
        sharded = isinstance(trainer.strategy, DeepSpeedStrategy)
        if not trainer.is_global_zero:
            trainer.save_checkpoint(self.sharded_path if sharded else self.checkpoint_path)
        elif sharded:
            replace_folder(self.sharded_path, trainer.save_checkpoint)
        else:
            replace_file(self.checkpoint_path, trainer.save_checkpoint)

    def _validate(self, trainer: L.Trainer) -> None:
        with trainer.precision_plugin.val_step_context():
            metrics = measure(self._module)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, self.steps_done - 1)
            logger.save()
        self.last_metrics = metrics
        if not math.isfinite(metrics[self._monitor]):
            raise NonFiniteError(
                f"{self._module.stage}: {self._monitor} is {metrics[self._monitor]} after {self.steps_done} steps"
            )
        best = self.best_metrics.get(self._monitor)
        targets = [self._folder / HISTORY / f"step-{self.steps_done:06}"] if self.loop.keep_parts else []
        if best is None or self._sign * metrics[self._monitor] < self._sign * best:
            self.best_step, self.best_metrics = self.steps_done, metrics
            targets.append(self._folder / "part")
        if targets:
            with whole_parameters(self._module):
                for target in targets if trainer.is_global_zero else []:
                    replace_folder(target, self._module.export)

    def _confirm(self, trainer: L.Trainer) -> None:
        trainer.strategy.barrier()  # until the first process has exported the best part
        with trainer.precision_plugin.val_step_context(), measuring(self._module):
            self.confirmed = self._module.confirm(self.best_step, self.steps_done)

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        kept = _trained_keys(module)
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in kept}

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if isinstance(trainer.strategy, DeepSpeedStrategy):
            return  # its engine has already loaded the weights
        expected, stored = set(_trained_keys(module)), set(checkpoint["state_dict"])
        if expected != stored:
            raise CheckpointError(f"{self.checkpoint_path}: missing or unexpected keys: {sorted(expected ^ stored)}")


def measure(module: StageModule) -> dict[str, float]:
    """Return module.evaluate(), as `measuring` has it."""
    with measuring(module):
        return module.evaluate()


@contextmanager
def measuring(module: StageModule) -> Iterator[None]:
    """Keep a module in eval mode and without gradients; every submodule has its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def _trained_keys(module: L.LightningModule) -> list[str]:
    """Return the keys of the module's state dict without those of frozen parameters."""
    frozen = {name for name, value in module.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return [name for name in module.state_dict() if name not in frozen]
