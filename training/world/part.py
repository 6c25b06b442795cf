"""What the parts of the world share: a StageModule on renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from prip.errors import InputError
from prip.miniature.prompts import SEEN_SPLITS

from ..engine.loop import train
from ..engine.optimizers import scheduled_optimizer, train_only
from ..engine.stage_module import StageModule
from ..runs.seeds import permutation_indices, seed_everything
from ..settings import LoopSettings, OptimizerSettings, WorldSettings
from .renders import Renders, make_renders


class Part(StageModule):
    """One part of the world. Its batches are indices into `renders`, all of them once a pass."""

    monitor: ClassVar[str]
    """Entry of `evaluate()` by which the best part is chosen."""
    mode: ClassVar[Literal["min", "max"]] = "max"
    """Whether that entry is to be small or large."""
    trained: ClassVar[tuple[str, ...]] = ("model.*",)
    """Patterns of the parameters that learn."""

    def __init__(
        self, name: str, settings: WorldSettings, splits: tuple[str, ...] = SEEN_SPLITS, begins_with: str | None = None
    ) -> None:
        """splits: those whose combinations its data names. begins_with: the trained part that it takes weights from."""
        super().__init__()
        self.name = name
        self.stage = f"world/{name}"  # type: ignore[misc]
        self.settings = settings
        self.splits = splits
        self.start_folder = part_folder(settings, begins_with) if begins_with else ""
        seed_everything(settings.seed, self.stage, "weights")
        self.build()

    def build(self) -> None:
        """Draws its data and makes its models."""
        raise NotImplementedError

    @property
    def loop(self) -> LoopSettings:
        """The training loop of this part."""
        return self.settings.loop

    @property
    def optimizer(self) -> OptimizerSettings:
        """The optimizer of this part."""
        return self.settings.optimizer

    def draw(self, train: int, dev: int = 1000) -> None:
        """Draws the renders that this part learns from and those that measure it; no two parts share any."""
        size, progress = self.settings.image_size, self.settings.progress
        key = self.settings.seed, self.stage
        self.renders: Renders = make_renders(train, size, *key, splits=self.splits, progress=progress)
        self.dev_renders: Renders = make_renders(min(dev, train), size, *key, "dev", splits=self.splits)

    def batch_at(self, step: int) -> Any:
        """Indices of the step's renders."""
        count = self.loop.batch_size
        return permutation_indices(step * count, count, len(self.renders), self.settings.seed, self.stage, "order")

    def configure_optimizers(self) -> Any:
        return scheduled_optimizer(self.optimizer, [p for p in self.parameters() if p.requires_grad], self.loop)

    def fit(self, folder: Path) -> dict[str, Any]:
        """Trains the part in its stage folder, and returns its metrics."""
        train_only(self, *self.trained)
        return train(
            self, self.settings, self.loop, folder, monitor=self.monitor, mode=self.mode, clip=self.optimizer.clip
        )


def part_folder(settings: WorldSettings, name: str) -> str:
    """Where a part that was trained lies. Raises InputError if it was not."""
    folder = settings.run / "world" / name / "part"
    if not folder.is_dir():
        raise InputError(f"parts: {name} is needed first, but {folder} is missing")
    return str(folder)
