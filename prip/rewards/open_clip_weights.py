"""Weights of a CLIP as open_clip (and hpsv2, which carries a copy of it) names them, to transformers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

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


def from_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of transformers' CLIPModel; a name that open_clip's CLIP does not have stays as it is."""
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
    """One weight of a transformer block; the three input projections lie in one matrix there."""
    if name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.removeprefix("attn.in_proj_")
        parts = weight.chunk(3)
        return {f"{prefix}self_attn.{what}_proj.{kind}": part.clone() for what, part in zip("qkv", parts, strict=True)}
    layer, _, kind = name.rpartition(".")
    return {f"{prefix}{_IN_BLOCK.get(layer, layer)}.{kind}": weight}
