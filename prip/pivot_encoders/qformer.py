"""The small pivot encoder: a convolutional trunk read by a Q-Former."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, PreTrainedConfig

from ..modeling.conv_trunk import ConvTrunk, TrunkModel
from ..protocols import Images


class QFormerPivotEncoderConfig(PreTrainedConfig):
    """Sizes of a QFormerPivotEncoder."""

    model_type = "prip_pivot_encoder"

    pivot_length: int = 8
    pivot_width: int = 64
    trunk_width: int = 128
    grid: int = 16
    layers: int = 2
    heads: int = 4


class QFormerPivotEncoder(TrunkModel):
    """A `PivotEncoder`: learned queries read a convolutional trunk's grid through a Q-Former.

    The pivot is the last hidden state of the queries.
    """

    config_class = QFormerPivotEncoderConfig
    base_model_prefix = "pivot_encoder"

    def __init__(self, config: QFormerPivotEncoderConfig) -> None:
        super().__init__(config)
        self.trunk = ConvTrunk(config.trunk_width)
        self.position = nn.Parameter(0.02 * torch.randn(1, config.grid, config.trunk_width))
        self.norm = nn.LayerNorm(config.trunk_width)
        self.query = nn.Parameter(0.02 * torch.randn(1, config.pivot_length, config.pivot_width))
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.pivot_width,
                intermediate_size=2 * config.pivot_width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                encoder_hidden_size=config.trunk_width,
                cross_attention_frequency=1,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        self.post_init()

    @property
    def pivot_length(self) -> int:
        """Number of vectors in a pivot."""
        return self.config.pivot_length

    @property
    def pivot_width(self) -> int:
        """Width of each vector."""
        return self.config.pivot_width

    def forward(self, images: Tensor) -> Tensor:
        """Map images `(n, 3, size, size)` in 0..255 to pivots `(n, pivot_length, pivot_width)`."""
        grid = self.trunk(images).flatten(2).transpose(1, 2)
        queries = self.query.expand(len(images), -1, -1)
        return self.qformer(queries, encoder_hidden_states=self.norm(grid) + self.position).last_hidden_state

    @torch.no_grad()
    def __call__(self, images: Images, batch_size: int = 256) -> Tensor:
        """Encode uint8 images `(n, 3, size, size)`; return float32 `(n, pivot_length, pivot_width)` on the CPU."""
        starts = range(0, len(images), batch_size)
        pivots = [self.forward(images[i : i + batch_size].to(self.device)).float().cpu() for i in starts]
        return torch.cat(pivots) if pivots else torch.zeros(0, self.pivot_length, self.pivot_width)
