"""What a stage gives the training loop: its batches, measurements and results."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import lightning as L
import torch
from torch import Tensor

_Item = TypeVar("_Item")


class StageModule(L.LightningModule):
    """A stage: which batch stands at which step, how it is measured, and what it leaves behind.

    Subclasses add training_step and configure_optimizers as Lightning wants them, with automatic or manual
    optimization. Parameters that do not require gradients are left out of the checkpoints: __init__ must bring them
    back.
    """

    stage: ClassVar[str]
    """Name of the stage: its folder in the run, and part of every seed."""
    starts_trained: ClassVar[bool] = False
    """Whether what it trains comes from an earlier stage: it is then measured before the first step, as step 0."""

    @abstractmethod
    def batch_at(self, step: int) -> Any:
        """Returns the batch of `step`, on the CPU: a pure function of the seed, the stage, the step and the rank.

        With loop.accumulate, batches are counted: those of step s are s * accumulate and the accumulate - 1 after it.
        """

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Measures the module on the dev split. Called in eval mode, without gradients, in all processes at once:
        each must return the same."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Writes the trained part into the empty folder `folder`. Called in the first process alone."""

    def facts(self) -> dict[str, float]:
        """Returns what metrics.json is to say of the finished stage beside its measures on the dev split."""
        return {}

    def log_step(self, name: str, value: Tensor, prog_bar: bool = False) -> None:
        """Logs what a batch gives for its step: the mean over the step's batches and over the processes."""
        values = self.__dict__.setdefault("_of_the_step", {}).setdefault(name, [])
        values.append(value.detach())
        if len(values) == self.trainer.accumulate_grad_batches:
            mean = torch.stack(values).mean() if len(values) > 1 else values[0]
            values.clear()
            self.log(name, mean, prog_bar=prog_bar, sync_dist=self.trainer.world_size > 1)

    def my_share(self, batches: Sequence[_Item]) -> list[tuple[_Item, bool]]:
        """Returns the batches of the dev split that this process measures, each with whether it counts.

        All processes get equally many, as those that share the weights out must call them together: where there is
        none left for a process, it repeats the first, which then does not count.
        """
        processes, count = self.trainer.world_size, len(batches)
        places = range(self.global_rank, -(-count // processes) * processes, processes)
        return [(batches[place], True) if place < count else (batches[0], False) for place in places]

    def summed(self, value: Tensor) -> Tensor:
        """Returns the sum of a tensor over the processes, on the CPU."""
        if self.trainer.world_size == 1:
            return value.cpu()
        return self.trainer.strategy.reduce(value.to(self.device), reduce_op="sum").cpu()
