"""The pivot encoder of the paper: BLIP-2's frozen vision transformer and stage-1 Q-Former, 32 x 768."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Blip2Config, Blip2QFormerModel, Blip2VisionModel
from transformers import initialization as init
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.blip_2.modeling_blip_2 import Blip2PreTrainedModel

from ..errors import CheckpointError
from ..modeling.strict_model import StrictModel
from ..protocols import Images
from ..resizing import resize_bicubic
from .lavis import LN_VISION_EPS, read_lavis_checkpoint, rename_lavis_keys

BATCH_SIZE = 64


class Blip2PivotEncoder(StrictModel, Blip2PreTrainedModel):
    """A `PivotEncoder` with BLIP-2's parts: its image branch alone, without a language model or text layers.

    The pivot is the last hidden state of the Q-Former's queries, with no norm or projection behind it: what
    lavis' feature extractor calls the image embedding. Files are those of transformers' BLIP-2 models.
    """

    config: Any
    config_class = Blip2Config
    _keep_in_fp32_modules_strict = {"query_tokens", "qformer"}
    _keys_to_ignore_on_load_unexpected = [
        r"^(embeddings|vision_projection|text_projection|itm_head|language_model|language_projection)\.",
        r"^qformer\.encoder\.layer\.\d+\.(intermediate|output)\.",
    ]

    def __init__(self, config: Blip2Config) -> None:
        """config: of any BLIP-2; only what it says of vision, Q-Former and queries is used."""
        own: Any = deepcopy(config)
        own.qformer_config.use_qformer_text_input = False
        super().__init__(own)
        self.vision_model = Blip2VisionModel(own.vision_config)
        norm_eps = getattr(own, "vision_norm_eps", None)
        if norm_eps is not None:
            self.vision_model.post_layernorm.eps = norm_eps
        self.query_tokens = nn.Parameter(torch.zeros(1, own.num_query_tokens, own.qformer_config.hidden_size))
        self.qformer = Blip2QFormerModel(own.qformer_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.normal_(self.query_tokens, std=self.config.initializer_range)

    @property
    def pivot_length(self) -> int:
        """Vectors in a pivot."""
        return self.config.num_query_tokens

    @property
    def pivot_width(self) -> int:
        """Width of each vector."""
        return self.config.qformer_config.hidden_size

    @classmethod
    def from_lavis(
        cls, file: str | os.PathLike[str], config: Blip2Config | None = None, dtype: torch.dtype = torch.float32
    ) -> Blip2PivotEncoder:
        """Loads lavis' checkpoint `blip2_pretrained.pth`, and the ViT from `eva_vit_g.pth` beside it where it has none.

        config: of the sizes; None is lavis' own (ViT-g and BERT base). dtype: of the ViT; the Q-Former is float32.
        Raises CheckpointError when a key is missing, unknown or of another shape; it lists them.
        """
        own: Any = deepcopy(config) if config is not None else Blip2Config()
        own.vision_norm_eps = LN_VISION_EPS
        with torch.device("meta"):
            model = cls(own)
        state = rename_lavis_keys(read_lavis_checkpoint(Path(file), own.vision_config.num_hidden_layers))
        try:
            model.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{file} does not fit BLIP-2: {' '.join(str(error).split())[:600]}") from error
        nn.Module.to(model.vision_model, dtype)
        model.qformer.float()
        model.query_tokens.data = model.query_tokens.data.float()
        return model.eval()

    def preprocess(self, images: Images) -> Tensor:
        """uint8 (n, 3, h, w) of any size to what the ViT reads: float32 (n, 3, image_size, image_size).

        BLIP-2's own: the whole image is brought to the square by Pillow's bicubic, then CLIP's mean and deviation.
        """
        side = self.config.vision_config.image_size
        mean = torch.tensor(OPENAI_CLIP_MEAN, device=images.device).view(3, 1, 1)
        deviation = torch.tensor(OPENAI_CLIP_STD, device=images.device).view(3, 1, 1)
        return (resize_bicubic(images, side, side).float() / 255 - mean) / deviation

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Preprocessed images (n, 3, image_size, image_size) to pivots float32 (n, pivot_length, pivot_width)."""
        seen = self.vision_model(pixel_values).last_hidden_state
        queries = self.query_tokens.expand(len(seen), -1, -1)
        return self.qformer(queries, encoder_hidden_states=seen).last_hidden_state

    @torch.no_grad()
    def __call__(self, images: Images, batch_size: int = BATCH_SIZE) -> Tensor:
        """Pivots, float32 (n, pivot_length, pivot_width) on the CPU, of uint8 images (n, 3, h, w)."""
        starts = range(0, len(images), batch_size)
        batches = (images[i : i + batch_size].to(self.device) for i in starts)
        pivots = [self.forward(self.preprocess(batch)).float().cpu() for batch in batches]
        return torch.cat(pivots) if pivots else torch.zeros(0, self.pivot_length, self.pivot_width)
