"""Readers, and the trunk that rewards and pivot encoder begin with: classifiers of renders."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prip.miniature.reader import Reader, ReaderConfig

from .part import Part
from .renders import augment


class ReaderPart(Part):
    """Cross-entropy of every factor."""

    monitor = "accuracy"

    def build(self) -> None:
        grid = (self.settings.image_size // 8) ** 2
        self.model = Reader(ReaderConfig(trunk_width=self.settings.trunk_width, grid=grid))
        self.draw(self.settings.renders)

    def training_step(self, batch: list[int], step: int) -> Tensor:
        images = augment(self.renders.images[batch]).to(self.device)
        scenes = self.renders.scenes[batch].to(self.device)
        losses = [F.cross_entropy(logits, scenes[:, i]) for i, logits in enumerate(self.model(images))]
        loss = torch.stack(losses).sum()
        self.log("loss", loss, prog_bar=True)
        return loss

    def evaluate(self) -> dict[str, float]:
        """Accuracy of each factor, and their mean."""
        return self.dev_renders.accuracy(self.model.read(self.dev_renders.images))

    def export(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
