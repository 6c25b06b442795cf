"""HPSv2 (Wu et al., 2023): 100 times the cosine of a CLIP ViT-H-14 trained on human choices.

Its two releases, v2.0 and v2.1, have different weights; their scores are not comparable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from ..loading.published_files import find_file, read_weights
from .clip_scorer import VIT_H_14, ClipScorer, inside
from .preprocessing import padded_pixels

FILES = {"hps-v2.0": "HPS_v2_compressed.pt", "hps-v2.1": "HPS_v2.1_compressed.pt"}

_TOWERS = {"visual.transformer.resblocks": "vision_model", "transformer.resblocks": "text_model"}
_BLOCK = re.compile(r"(visual\.transformer\.resblocks|transformer\.resblocks)\.(\d+)\.(.+)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


class HpsV2Config(PreTrainedConfig):
    """Architecture of an HpsV2: `name` is the release, `clip` holds fields of a CLIPConfig, None is ViT-H-14."""

    model_type = "prip_hps_v2"

    name: str = "hps-v2.0"
    clip: dict | None = None


class HpsV2(ClipScorer):
    """HPSv2 in percent, as its paper prints it."""

    config_class = HpsV2Config
    base_model_prefix = "hps_v2"
    published = "xswu/HPSv2"
    published_clip = VIT_H_14
    pixels = staticmethod(padded_pixels)

    def score(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Return 100 times the cosine, float32 `(n,)`."""
        return 100 * self.cosines(user_prompts, images)

    @classmethod
    def from_original(
        cls,
        place: str | None = None,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        release: str = "hps-v2.0",
        clip: dict | None = None,
    ) -> HpsV2:
        """Load the authors' weights.

        Args:
            place: Their file, a folder that holds it, or a Hub id; None is the authors' repository.
            revision: Of the Hub repository.
            dtype: Of the network; None is float32.
            release: A key of FILES.
            clip: Fields of a CLIPConfig; None is ViT-H-14.

        Raises:
            CheckpointError: If there is no such file, or its weights do not fit.
        """
        config = HpsV2Config(name=release, clip=clip)
        path = find_file(place or cls.published, (FILES[release],), revision)
        return cls.from_weights(config, inside("clip", from_open_clip(read_weights(path))), path, dtype)


def from_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of open_clip's CLIP, which hpsv2 carries a copy of, to those of transformers' CLIPModel.

    Names that open_clip's CLIP does not have stay as they are, so that strict loading reports them.
    """
    renamed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name in _OUTSIDE:
            renamed[_OUTSIDE[name]] = weight
        elif name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = weight.T.contiguous()
        elif block := _BLOCK.fullmatch(name):
            tower, layer, rest = block.groups()
            renamed |= _in_block(f"{_TOWERS[tower]}.encoder.layers.{layer}.", rest, weight)
        else:
            renamed[name] = weight
    return renamed


def _in_block(prefix: str, name: str, weight: Tensor) -> dict[str, Tensor]:
    """Rename one weight of a transformer block; open_clip keeps the three input projections in one matrix."""
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.removeprefix("attn.in_proj_")
        chunks = zip("qkv", weight.chunk(3), strict=True)
        return {f"{prefix}self_attn.{letter}_proj.{kind}": chunk.clone() for letter, chunk in chunks}
    layer, _, kind = name.rpartition(".")
    return {f"{prefix}{_IN_BLOCK.get(layer, layer)}.{kind}": weight}
