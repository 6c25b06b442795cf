"""The paper's pivot encoder: BLIP-2's frozen vision transformer and stage-1 Q-Former; pivots of 32 x 768."""

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
    """A `PivotEncoder` from BLIP-2's image branch, without its language model and text layers.

    The pivot is the last hidden state of the Q-Former's queries, without a norm or projection after it: what lavis'
    feature extractor calls the image embedding. Its files are those of transformers' BLIP-2 models.
    """

    config: Any
    config_class = Blip2Config
    _keep_in_fp32_modules_strict = {"query_tokens", "qformer"}
    _keys_to_ignore_on_load_unexpected = [
        r"^(embeddings|vision_projection|text_projection|itm_head|language_model|language_projection)\.",
        r"^qformer\.encoder\.layer\.\d+\.(intermediate|output)\.",
    ]

    def __init__(self, config: Blip2Config) -> None:
        """Build from the config of any BLIP-2, of which the vision, Q-Former and query settings are used."""
        image_branch: Any = deepcopy(config)
        image_branch.qformer_config.use_qformer_text_input = False
        super().__init__(image_branch)
        self.vision_model = Blip2VisionModel(image_branch.vision_config)
        norm_eps = getattr(image_branch, "vision_norm_eps", None)
        if norm_eps is not None:
            self.vision_model.post_layernorm.eps = norm_eps
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, self.pivot_width))
        self.qformer = Blip2QFormerModel(image_branch.qformer_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.normal_(self.query_tokens, std=self.config.initializer_range)

    @property
    def pivot_length(self) -> int:
        """Number of vectors in a pivot."""
        return self.config.num_query_tokens

    @property
    def pivot_width(self) -> int:
        """Width of each vector."""
        return self.config.qformer_config.hidden_size

    @classmethod
    def from_lavis(
        cls, file: str | os.PathLike[str], config: Blip2Config | None = None, dtype: torch.dtype = torch.float32
    ) -> Blip2PivotEncoder:
        """Load lavis' checkpoint.

        Args:
            file: `blip2_pretrained.pth`. If it has no ViT, the ViT is loaded from `eva_vit_g.pth` beside it.
            config: Architecture; None is lavis' own (ViT-g and BERT base).
            dtype: Of the ViT; the Q-Former is always float32.

        Raises:
            CheckpointError: If a weight is missing, unexpected or of another shape; lists them.
        """
        lavis_config: Any = deepcopy(config) if config is not None else Blip2Config()
        lavis_config.vision_norm_eps = LN_VISION_EPS
        with torch.device("meta"):
            model = cls(lavis_config)
        state = rename_lavis_keys(read_lavis_checkpoint(Path(file), lavis_config.vision_config.num_hidden_layers))
        try:
            model.load_state_dict(state, strict=True, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"{file} does not fit BLIP-2: {' '.join(str(error).split())[:600]}") from error
        nn.Module.to(model.vision_model, dtype)
        model.qformer.float()
        model.query_tokens.data = model.query_tokens.data.float()
        return model.eval()

    def preprocess(self, images: Images) -> Tensor:
        """Preprocess uint8 images `(n, 3, height, width)` as BLIP-2 does; float32 `(n, 3, image_size, image_size)`.

        The whole image is resized to a square by Pillow's bicubic, then standardised by CLIP's mean and deviation.
        """
        side = self.config.vision_config.image_size
        mean = torch.tensor(OPENAI_CLIP_MEAN, device=images.device).view(3, 1, 1)
        deviation = torch.tensor(OPENAI_CLIP_STD, device=images.device).view(3, 1, 1)
        return (resize_bicubic(images, side, side).float() / 255 - mean) / deviation

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map preprocessed images to pivots, float32 `(n, pivot_length, pivot_width)`."""
        patches = self.vision_model(pixel_values).last_hidden_state
        queries = self.query_tokens.expand(len(patches), -1, -1)
        return self.qformer(queries, encoder_hidden_states=patches).last_hidden_state

    @torch.no_grad()
    def __call__(self, images: Images, batch_size: int = BATCH_SIZE) -> Tensor:
        """Encode uint8 images of any size; return float32 `(n, pivot_length, pivot_width)` on the CPU."""
        starts = range(0, len(images), batch_size)
        batches = (images[i : i + batch_size].to(self.device) for i in starts)
        pivots = [self.forward(self.preprocess(batch)).float().cpu() for batch in batches]
        return torch.cat(pivots) if pivots else torch.zeros(0, self.pivot_length, self.pivot_width)
