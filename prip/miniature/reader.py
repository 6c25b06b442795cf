"""Reader: classifies the subject, place and attributes of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from ..modeling.conv_trunk import ConvTrunk, TrunkModel
from ..protocols import Images
from .scene import FACTOR_SIZES


class ReaderConfig(PreTrainedConfig):
    """Sizes of a Reader."""

    model_type = "prip_reader"

    trunk_width: int = 128
    width: int = 256
    grid: int = 16
    factor_sizes: list[int] | None = None


class Reader(TrunkModel):
    """A convolutional classifier with one head for each factor of `scene.FACTORS`."""

    config_class = ReaderConfig
    base_model_prefix = "reader"

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__(config)
        self.factor_sizes = list(config.factor_sizes or FACTOR_SIZES)
        self.trunk = ConvTrunk(config.trunk_width)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(config.trunk_width * config.grid, config.width),
            nn.SiLU(),
            nn.Linear(config.width, sum(self.factor_sizes)),
        )
        self.post_init()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images `(n, 3, size, size)` in 0..255 to the logits `(n, values)` of each factor."""
        return list(self.head(self.trunk(images)).split(self.factor_sizes, 1))

    @property
    def image_size(self) -> int:
        """Side of its input images in pixels."""
        return 8 * math.isqrt(self.config.grid)

    @torch.no_grad()
    def read(self, images: Images, batch_size: int = 256) -> list[Tensor]:
        """Return the probabilities of each factor, float `(n, values)`, on the CPU."""
        rows = [
            [logits.float().softmax(1).cpu() for logits in self.forward(images[i : i + batch_size].to(self.device))]
            for i in range(0, len(images), batch_size)
        ]
        return [torch.cat(column) for column in zip(*rows, strict=True)]
