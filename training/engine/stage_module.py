"""What a stage provides to the training loop: its batches, its measurements and its result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

_Batch = TypeVar("_Batch")


class StageModule(L.LightningModule):
    """A Lightning module whose training can be resumed exactly.

    Subclasses also define `training_step`, with automatic or manual optimization. Parameters that do not require
    gradients are left out of checkpoints: `__init__` must restore them.
    """

    stage: ClassVar[str]
    """Name of the stage: its folder in the run, and part of every seed."""
    starts_trained: ClassVar[bool] = False
    """Whether it continues an earlier stage; it is then also measured before the first step, as step 0."""

    @abstractmethod
    def batch_at(self, step: int) -> object:
        """Return batch number `step`, on the CPU: a pure function of the seed, the stage, the step and the rank.

        With loop.accumulate, step s of the optimizer takes the `accumulate` batches from s * accumulate on.
        """

    @abstractmethod
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer and its schedule."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measure the module on the dev split.

        Called in eval mode and without gradients, in all processes at once; each must return the same.
        """

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the trained part into the empty folder `folder`. Called in the first process only."""

    def confirm(self, best_step: int, last_step: int) -> dict[str, dict[str, float]]:
        """Measure the part before the first step, the best and the last once more, where `evaluate` is noisy.

        Called as `evaluate` is, after the last step; nothing random follows it.

        Returns:
            Metrics of first, best and last; empty if `evaluate` is exact.
        """
        return {}

    def facts(self) -> dict[str, float]:
        """Return entries of metrics.json beside the dev metrics."""
        return {}

    def log_step(self, name: str, value: Tensor, prog_bar: bool = False) -> None:
        """Log a value of a batch; the log gets its mean over the step's batches and over the processes."""
        values = self.__dict__.setdefault("_of_the_step", {}).setdefault(name, [])
        values.append(value.detach())
        if len(values) == self.trainer.accumulate_grad_batches:
            mean = torch.stack(values).mean() if len(values) > 1 else values[0]
            values.clear()
            self.log(name, mean, prog_bar=prog_bar, sync_dist=self.trainer.world_size > 1)

    def my_share(self, batches: Sequence[_Batch]) -> list[tuple[_Batch, bool]]:
        """Return this process's share of the dev batches, each with whether it counts.

        All processes get the same number, because sharded weights must be called by all together; a process that has no
        batch left gets the first again, which does not count.
        """
        processes, count = self.trainer.world_size, len(batches)
        indices = range(self.global_rank, -(-count // processes) * processes, processes)
        return [(batches[index], True) if index < count else (batches[0], False) for index in indices]

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, on the CPU."""
        if self.trainer.world_size == 1:
            return value.cpu()
        return self.trainer.strategy.reduce(value.to(self.device), reduce_op="sum").cpu()
