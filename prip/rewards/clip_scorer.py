"""A reward around a CLIP: how near an image lies to the user prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, PreTrainedConfig

from ..loading.folders import resolve_folder
from ..loading.published_files import read_weights
from ..loading.untrusted import check_model_type, open_weights, read_json
from ..modeling.strict_model import nested_config
from .clip_text import clip_token_ids
from .scorer import Scorer

VIT_L_14: dict[str, Any] = {
    "projection_dim": 768,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "projection_dim": 768,
    },
}
"""openai/clip-vit-large-patch14, as the fields of a CLIPConfig."""

VIT_H_14: dict[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "projection_dim": 1024,
        "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "patch_size": 14,
        "projection_dim": 1024,
        "hidden_act": "gelu",
    },
}
"""open_clip's ViT-H-14, as the fields of a CLIPConfig."""

_BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


class ClipScorer(Scorer):
    """Base of the rewards that compare a CLIP's image and text features. `published_clip` is the default size."""

    published_clip: dict[str, Any]

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        clip: Any = CLIPConfig(**(config.clip or self.published_clip))
        self.clip = CLIPModel(clip)
        self.edge: int = clip.vision_config.image_size
        self.text_length: int = clip.text_config.max_position_embeddings
        self.post_init()

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> Any:
        """Builds with random weights."""
        return cls(config).eval()

    def pixels(self, images: Tensor, edge: int) -> Tensor:
        """Images as this CLIP's authors prepare them: float32 (n, 3, edge, edge)."""
        raise NotImplementedError

    def clean(self, user_prompt: str) -> str:
        """A user prompt as this CLIP's authors prepare it for the tokenizer."""
        raise NotImplementedError

    def cosines(self, user_prompts: Sequence[str], images: Tensor) -> Tensor:
        """Cosine of each image with its user prompt, float32 (n,) in -1..1."""
        ids = clip_token_ids(list(map(self.clean, user_prompts)), self.text_length)
        pixels = self.pixels(images, self.edge).to(self.device, self.dtype)
        texts = self.clip.get_text_features(input_ids=ids.to(self.device)).pooler_output
        looks = self.clip.get_image_features(pixel_values=pixels).pooler_output
        return F.cosine_similarity(texts.float(), looks.float(), dim=-1)


def clip_folder(place: str, revision: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """A CLIP in transformers' format, local or on the Hub: its CLIPConfig's fields, weights by name, and its folder.

    Raises CheckpointError where there is none.
    """
    folder = resolve_folder(place, revision)
    fields = read_json(folder / "config.json")
    check_model_type(fields, "clip", folder / "config.json")
    return clip_fields(CLIPConfig.from_dict(fields)), _folder_weights(folder), folder


def _folder_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a saved model by name, from safetensors, or from a local pickle where there are none."""
    pickled = folder / "pytorch_model.bin"
    is_pickled = pickled.is_file() and not any(folder.glob("*.safetensors"))
    weights = read_weights(pickled) if is_pickled else open_weights(folder)
    return {name: weight for name, weight in weights.items() if name not in _BUFFERS}


def clip_fields(config: CLIPConfig) -> dict[str, Any]:
    """The architecture in a CLIPConfig as plain fields; the width of the common space stands in both towers as well."""
    width = {"projection_dim": config.projection_dim}
    towers: dict[str, Any] = {"text_config": config.text_config, "vision_config": config.vision_config}
    return {**width, **{key: {**nested_config(tower), **width} for key, tower in towers.items()}}


def inside(part: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a network under the names that they have where it is the part `part` of another."""
    return {f"{part}.{name}": weight for name, weight in weights.items()}
