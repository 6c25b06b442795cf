"""Small convolutional trunk of the miniature's readers, rewards and pivot encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .strict_model import StrictModel


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with group normalization and a skip; width and resolution unchanged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(hidden)))


class ConvTrunk(nn.Module):
    """Maps uint8 images `(n, 3, size, size)` to float features `(n, width, size / 8, size / 8)`."""

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 4, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width // 4, width // 2, 4, stride=2, padding=1),
            ResidualBlock(width // 2),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
            ResidualBlock(width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.to(next(self.layers.parameters()).dtype) / 127.5 - 1)


class TrunkModel(StrictModel):
    """Base of the small models around a ConvTrunk, whose layers keep torch's own initialization."""

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the initialization of torch."""
