"""Pivot encoders, from an image to its pivot: a small vision trunk with a Q-Former, and where any of them is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, PreTrainedConfig

from ..devices import as_device, as_dtype
from ..errors import CheckpointError
from ..loading.folders import resolve_folder
from ..loading.untrusted import read_json
from ..modeling.conv_trunk import ConvTrunk, TrunkModel
from ..protocols import Images, PivotEncoder

if TYPE_CHECKING:
    from .blip2 import Blip2PivotEncoder


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
    """Learned queries that read a convolutional trunk's grid through a Q-Former; its last hidden state is the pivot."""

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
        """Vectors in a pivot."""
        return self.config.pivot_length

    @property
    def pivot_width(self) -> int:
        """Width of each vector."""
        return self.config.pivot_width

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 3, size, size) in 0..255 to pivots (n, pivot_length, pivot_width)."""
        grid = self.trunk(images).flatten(2).transpose(1, 2)
        queries = self.query.expand(len(images), -1, -1)
        return self.qformer(queries, encoder_hidden_states=self.norm(grid) + self.position).last_hidden_state

    @torch.no_grad()
    def __call__(self, images: Images, batch_size: int = 256) -> Tensor:
        """Pivots, float32 (n, pivot_length, pivot_width) on the CPU."""
        starts = range(0, len(images), batch_size)
        pivots = [self.forward(images[i : i + batch_size].to(self.device)).float().cpu() for i in starts]
        return torch.cat(pivots) if pivots else torch.zeros(0, self.pivot_length, self.pivot_width)


def load_pivot_encoder(
    name_or_path: str | Path, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> PivotEncoder:
    """Loads a pivot encoder, frozen.

    name_or_path: a folder or Hub id (there at "ID@REVISION") of PRIP's own format or of a BLIP-2 of transformers, such
    as Salesforce/blip2-itm-vit-g; or lavis' file blip2_pretrained.pth. device: None takes a GPU where there is one.
    dtype: by name or as torch's, None is float32; BLIP-2's Q-Former stays float32, and so do the pivots.
    Raises CheckpointError where there is none, or one that does not fit to the last key.
    """
    encoder: Any
    if Path(name_or_path).expanduser().is_file():
        encoder = _blip2().from_lavis(Path(name_or_path).expanduser(), dtype=as_dtype(dtype))
    else:
        folder = resolve_folder(name_or_path)
        kinds: dict[str, Callable[[], Any]] = {
            QFormerPivotEncoderConfig.model_type: lambda: QFormerPivotEncoder,
            "blip-2": _blip2,
        }
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in kinds:
            raise CheckpointError(f"{folder} is foreign: model_type {' or '.join(kinds)} expected, {kind!r} found")
        encoder = kinds[kind]().from_pretrained(folder, dtype=as_dtype(dtype))
    return encoder.to(as_device(device)).requires_grad_(False).eval()


def _blip2() -> type[Blip2PivotEncoder]:
    from .blip2 import Blip2PivotEncoder

    return Blip2PivotEncoder
