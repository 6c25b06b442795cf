"""Read lavis' BLIP-2 checkpoints, and rename their weights to those of transformers' BLIP-2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError

LN_VISION_EPS = 1e-5
"""Epsilon of lavis' norm between the ViT and the Q-Former; the ViT's own norms have 1e-6."""

VISION_FILE = "eva_vit_g.pth"
"""File of the ViT, which stage 1 froze and therefore leaves out of its own checkpoint."""

UNUSED = re.compile(
    r"Qformer\.(cls|bert\.pooler)\.|Qformer\.bert\.embeddings\.(word_embeddings|position_embeddings|position_ids)"
    r"|Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\."
    r"|(vision_proj|text_proj|itm_head|opt_model|opt_proj|t5_model|t5_proj|llm_model|llm_proj)\.|temp$"
)
"""Weights of the text branch, the heads and the language models of stage 2, which the pivot does not need."""

UNUSED_IN_VISION_FILE = re.compile(r"(norm|fc_norm|head)\.")
"""Weights of EVA's classifier, which lavis leaves out."""

_RENAMES = [
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.", r"vision_model.encoder.layers.\1.self_attn."),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.layernorm."),
    (r"^Qformer\.bert\.(encoder\.layer\.\d+\.(?:cross)?attention)\.self\.", r"qformer.\1.attention."),
    (r"^Qformer\.bert\.(encoder\.layer\.)", r"qformer.\1"),
]
_RENAMES_COMPILED = [(re.compile(pattern), to) for pattern, to in _RENAMES]


def read_lavis_checkpoint(file: Path, vision_layers: int) -> dict[str, Tensor]:
    """Return the state dict under lavis' names, including the ViT.

    Args:
        file: lavis' checkpoint. If it has no ViT, the ViT is read from VISION_FILE beside it.
        vision_layers: Number of ViT blocks used; EVA's file has one more, which lavis leaves out.

    Raises:
        CheckpointError: If the file is not lavis', or there is no ViT.
    """
    state = _load(file).get("model")
    if not isinstance(state, dict) or "query_tokens" not in state:
        raise CheckpointError(
            f"{file}: expected lavis' {{'model': state dict with query_tokens}}, got another checkpoint"
        )
    if not any(key.startswith("visual_encoder.") for key in state):
        vision = file.parent / VISION_FILE
        if not vision.is_file():
            raise CheckpointError(f"{file}: it has no vision transformer, and there is no {VISION_FILE} beside it")
        state = {**state, **{f"visual_encoder.{key}": value for key, value in _eva(vision, vision_layers).items()}}
    return state


def _eva(file: Path, vision_layers: int) -> dict[str, Tensor]:
    """Read the ViT's own file, without its classifier and unused last blocks."""

    def is_used(key: str) -> bool:
        block = re.match(r"blocks\.(\d+)\.", key)
        return not UNUSED_IN_VISION_FILE.match(key) and (block is None or int(block[1]) < vision_layers)

    return {key: value for key, value in _load(file).items() if is_used(key)}


def _load(file: Path) -> dict[str, Any]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises the errors of its unpickler, zip and mmap
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{file}: cannot be read as a file of tensors: {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: expected a dict, got {type(loaded).__name__}")
    return loaded


def rename_lavis_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict under transformers' names, without weights that the pivot does not need.

    The ViT's query and value biases become one vector with zeros for the keys. Names that lavis' BLIP-2 does not have
    stay as they are, so that strict loading reports them.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if UNUSED.match(key):
            continue
        name = key
        for pattern, to in _RENAMES_COMPILED:
            name, count = pattern.subn(to, name)
            if count:
                break
        renamed[name] = value
    for name in [name for name in renamed if name.endswith(".self_attn.q_bias")]:
        layer = name.removesuffix("q_bias")
        queries = renamed.pop(name)
        values = renamed.pop(layer + "v_bias", None)
        if values is not None:
            renamed[layer + "qkv.bias"] = torch.cat([queries, torch.zeros_like(queries), values])
    return renamed
