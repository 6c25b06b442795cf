"""Runs lavis' BLIP-2 feature extractor and its image processor with tiny random weights, and writes these, the images
and the embeddings to golden.safetensors beside this file.

    python tests/parity/lavis/make_golden.py

needs requirements.txt and then, with `pip install --no-deps`, reference.txt, in an environment of their own. What runs
is lavis' own `BlipImageEvalProcessor` with torchvision's transforms, its `Blip2Qformer.extract_features`, its EVA ViT
and its Q-Former. Stood in for, since they do not load, and never called: torchvision's compiled operators, data sets
and file reading, cv2, pandas, `torch._six`, which timm 0.4.12 looks for, and the `__init__` files of lavis, which
import all of it. The Hub's BERT and EVA's download are replaced by random weights of a small size.
"""

from __future__ import annotations

import collections.abc
import importlib.machinery
import importlib.util
import sys
import types
from functools import partial
from pathlib import Path
from unittest.mock import MagicMock

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

IMAGE, PATCH, WIDTH, DEPTH, HEADS = 28, 14, 32, 2, 2
TEXT, LAYERS, QUERIES = 16, 3, 4


class Anything(types.ModuleType):
    """A module in which every name is there, so that imports pass; none is called."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=f"{self.__name__}.{name}")


def put(module: types.ModuleType) -> None:
    """Puts a module in the place of one that does not load."""
    module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    sys.modules[module.__name__] = module


def bare(package: str, *rooms: str) -> None:
    """Lets the modules of an installed package be imported without running its `__init__`, nor those of `rooms`."""
    root = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    for room in ("", *rooms):
        module = types.ModuleType(f"{package}.{room}" if room else package)
        put(module)
        module.__path__ = [str(root.joinpath(*room.split(".")))]


def prepare_imports() -> None:
    """Stands in for what does not load."""
    bare("torchvision")
    for name in ("datasets", "datasets.utils", "ops", "ops.misc", "io", "utils"):
        put(Anything(f"torchvision.{name}"))
    put(Anything("cv2"))
    put(Anything("pandas"))
    put(Anything("torch._six"))
    sys.modules["torch._six"].container_abcs = collections.abc
    bare("lavis", "models", "models.blip2_models", "models.blip_models", "common", "processors", "datasets")


def tiny_model() -> nn.Module:
    """Builds lavis' Blip2Qformer by its own constructor, at a small size."""
    from lavis.models import base_model, eva_vit
    from lavis.processors import base_processor

    sys.modules["lavis.models"].BaseModel = base_model.BaseModel  # where lavis' registry looks for them
    sys.modules["lavis.processors"].BaseProcessor = base_processor.BaseProcessor
    from lavis.models.blip2_models import blip2
    from lavis.models.blip2_models.blip2_qformer import Blip2Qformer

    config = blip2.BertConfig(
        vocab_size=40,
        hidden_size=TEXT,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    blip2.BertConfig.from_pretrained = classmethod(lambda cls, *args, **kwargs: config)
    blip2.BertLMHeadModel.from_pretrained = classmethod(lambda cls, *args, config, **kwargs: cls(config))
    blip2.Blip2Base.init_tokenizer = classmethod(lambda cls: range(40))
    blip2.create_eva_vit_g = lambda *args: eva_vit.VisionTransformer(
        img_size=IMAGE,
        patch_size=PATCH,
        use_mean_pooling=False,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        mlp_ratio=1.5,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    model = Blip2Qformer(img_size=IMAGE, vit_precision="fp32", num_query_token=QUERIES, embed_dim=8)
    source = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # norms and biases too: nothing may be right by being zero or one
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=source) + (parameter.dim() == 1)
    return model.eval()


def main() -> None:
    prepare_imports()
    torch.manual_seed(0)
    model = tiny_model()
    from lavis.processors.blip_processors import BlipImageEvalProcessor

    images = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    process = BlipImageEvalProcessor(image_size=IMAGE)
    pixels = torch.stack([process(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    with torch.no_grad():
        embeddings = model.extract_features({"image": pixels}, mode="image").image_embeds
    tensors = {f"model.{name}": value.clone().contiguous() for name, value in model.state_dict().items()}
    tensors |= {"images": images, "pixels": pixels, "embeddings": embeddings.contiguous()}
    save_file(tensors, Path(__file__).with_name("golden.safetensors"))


if __name__ == "__main__":
    main()
