"""Base of the world's parts: a StageModule on renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from prip.errors import InputError
from prip.miniature.prompts import SEEN_SPLITS

from ..engine.loop import train
from ..engine.optimizers import scheduled_optimizer, train_only
from ..engine.stage_module import StageModule
from ..runs.seeds import permutation_indices, seed_everything
from ..settings import LoopSettings, OptimizerSettings, WorldSettings
from .renders import Renders, make_renders


class Part(StageModule):
    """One part of the world. Its batches are indices into `renders`, each once per pass."""

    monitor: ClassVar[str]
    """Entry of `evaluate()` that chooses the best part."""
    mode: ClassVar[Literal["min", "max"]] = "max"
    """Whether that entry should be small or large."""
    trained: ClassVar[tuple[str, ...]] = ("model.*",)
    """Patterns of the trained parameters."""

    def __init__(
        self, name: str, settings: WorldSettings, splits: tuple[str, ...] = SEEN_SPLITS, begins_with: str | None = None
    ) -> None:
        """Build the part on renders of `splits`, with the weights of the trained part `begins_with`, if any."""
        super().__init__()
        self.name = name
        self.stage = f"world/{name}"  # type: ignore[misc]
        self.settings = settings
        self.splits = splits
        self.start_folder = part_folder(settings, begins_with) if begins_with else ""
        seed_everything(settings.seed, self.stage, "weights")
        self.build()

    def build(self) -> None:
        """Draw the part's data and build its models."""
        raise NotImplementedError

    @property
    def loop(self) -> LoopSettings:
        """The training loop."""
        return self.settings.loop

    @property
    def optimizer(self) -> OptimizerSettings:
        """The optimizer."""
        return self.settings.optimizer

    def draw(self, train: int, dev: int = 1000) -> None:
        """Draw the renders for training and evaluation; no two parts share any."""
        size, progress = self.settings.image_size, self.settings.progress
        key = self.settings.seed, self.stage
        self.renders: Renders = make_renders(train, size, *key, splits=self.splits, progress=progress)
        self.dev_renders: Renders = make_renders(min(dev, train), size, *key, "dev", splits=self.splits)

    def batch_at(self, step: int) -> list[int] | tuple[Tensor, ...]:
        """Return the indices of the step's renders."""
        count = self.loop.batch_size
        return permutation_indices(step * count, count, len(self.renders), self.settings.seed, self.stage, "order")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return scheduled_optimizer(self.optimizer, [p for p in self.parameters() if p.requires_grad], self.loop)

    def fit(self, folder: Path) -> dict[str, Any]:
        """Train the part in its stage folder, and return its metrics."""
        train_only(self, *self.trained)
        return train(
            self, self.settings, self.loop, folder, monitor=self.monitor, mode=self.mode, clip=self.optimizer.clip
        )


def part_folder(settings: WorldSettings, name: str) -> str:
    """Return the folder of a trained part. Raise InputError if it is missing."""
    folder = settings.run / "world" / name / "part"
    if not folder.is_dir():
        raise InputError(f"parts: expected {name} to be trained first, got none at {folder}")
    return str(folder)
