"""The readers, and the pivot encoder: a Q-Former over a frozen trunk, trained on factors and captions of renders."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prip.miniature.reader import Reader, ReaderConfig
from prip.miniature.scene import FACTOR_SIZES
from prip.pivot_encoders.qformer import QFormerPivotEncoder, QFormerPivotEncoderConfig

from ..from_scratch import train_encoder_tokenizer
from .part import Part
from .renders import augment

CONTRAST_WIDTH, TEMPERATURE = 64, 0.07


class ReaderPart(Part):
    """A classifier of renders: a reader, or the trunk that the rewards and the pivot encoder start from."""

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
        """Return the accuracy of each factor, and their mean."""
        return self.dev_renders.accuracy(self.model.read(self.dev_renders.images))

    def export(self, folder: Path) -> None:
        self.model.save_pretrained(folder)


class PivotEncoderPart(Part):
    """A linear layer reads every factor from the pivot (cross-entropy); an image-text contrastive loss is added."""

    monitor = "accuracy"
    trained = (
        "model.position",
        "model.norm.*",
        "model.query",
        "model.qformer.*",
        "factors.*",
        "image_side.*",
        "text_side.*",
    )

    def build(self) -> None:
        settings = self.settings
        self.draw(settings.renders)
        self.model = QFormerPivotEncoder(
            QFormerPivotEncoderConfig(
                pivot_length=settings.pivot_length,
                pivot_width=settings.pivot_width,
                trunk_width=settings.trunk_width,
                grid=(settings.image_size // 8) ** 2,
            )
        )
        trained = Reader.from_pretrained(self.start_folder)
        self.model.trunk.load_state_dict(trained.trunk.state_dict())
        size = settings.pivot_length * settings.pivot_width
        self.factors = nn.Linear(size, sum(FACTOR_SIZES))
        self.tokenizer = train_encoder_tokenizer(self.renders.captions, 800)
        self.image_side = nn.Linear(size, CONTRAST_WIDTH)
        self.text_side = nn.EmbeddingBag(len(self.tokenizer), CONTRAST_WIDTH, padding_idx=self.tokenizer.pad_token_id)

    def training_step(self, batch: list[int], step: int) -> Tensor:
        pivots = self.model.forward(augment(self.renders.images[batch]).to(self.device)).flatten(1)
        scenes = self.renders.scenes[batch].to(self.device)
        logits = self.factors(pivots).split(FACTOR_SIZES, 1)
        classification = torch.stack([F.cross_entropy(found, scenes[:, i]) for i, found in enumerate(logits)]).sum()
        captions = self.tokenizer([self.renders.captions[i] for i in batch], padding=True, return_tensors="pt")
        text = F.normalize(self.text_side(captions["input_ids"].to(self.device)), dim=1)
        likeness = F.normalize(self.image_side(pivots), dim=1) @ text.T / TEMPERATURE
        own = torch.arange(len(batch), device=self.device)
        contrast = (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2
        self.log("classification", classification, prog_bar=True)
        self.log("contrast", contrast, prog_bar=True)
        return classification + contrast

    def evaluate(self) -> dict[str, float]:
        """Return the accuracy of each factor, read from the pivot by the linear layer, and their mean."""
        pivots = self.model(self.dev_renders.images).flatten(1).to(self.device)
        return self.dev_renders.accuracy(self.factors(pivots).split(FACTOR_SIZES, 1))

    def export(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
