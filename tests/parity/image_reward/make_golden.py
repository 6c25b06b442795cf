"""Golden files of image-reward: ImageReward's score, and the package's CLIP and aesthetic scores, at tiny size.

The package's __init__ files import its trainer, and with it diffusers and datasets: its modules are imported past them.
Its networks come in two sizes only: here the classes are its own, and the numbers of layers and widths are ours.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from common import (  # noqa: E402
    PROMPTS,
    bare_package,
    bare_torchvision,
    keep_rows,
    make_images,
    randomise,
    save_golden,
    save_shapes,
)

bare_torchvision()
bare_package("ImageReward")
bare_package("ImageReward.models")

import clip  # noqa: E402
from clip.model import CLIP, VisionTransformer  # noqa: E402
from ImageReward import ImageReward as package  # noqa: E402
from ImageReward.models import AestheticScore, CLIPScore  # noqa: E402
from ImageReward.models.BLIP import blip, blip_pretrain, vit  # noqa: E402
from transformers import BertTokenizer  # noqa: E402

MED = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30524,
    "encoder_width": 768,
    "add_cross_attention": True,
}
"""med_config.json as published."""

TINY_TEXT = {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2}
TINY_TEXT |= {"max_position_embeddings": 48, "vocab_size": 128}
TINY_VISION = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
TINY_HEAD = (32, 16, 8, 4)
TINY_CLIP = {
    "embed_dim": 16,
    "image_resolution": 32,
    "vision_layers": 2,
    "vision_width": 16,
    "vision_patch_size": 8,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 24,
    "transformer_heads": 3,
    "transformer_layers": 2,
}


def tokenizer() -> BertTokenizer:
    """BERT's tokenizer with a vocabulary of letters and a few words."""
    return BertTokenizer(str(HERE / "vocab.txt"))


def narrowed(mlp: nn.Module, width: int) -> None:
    """Gives the package's head, in place, other widths: linear layers stay where they stand."""
    sizes = [width, *TINY_HEAD, 1]
    places = [i for i, layer in enumerate(mlp.layers) if isinstance(layer, nn.Linear)]
    for place, (into, out) in zip(places, pairwise(sizes), strict=True):
        mlp.layers[place] = nn.Linear(into, out)


@torch.no_grad()
def make_image_reward(folder: Path) -> None:
    (folder / "med_config.json").write_text(json.dumps({**MED, **TINY_TEXT}), encoding="utf-8")
    tower = vit.VisionTransformer(**TINY_VISION, drop_path_rate=0.1)
    with mock.patch.object(blip_pretrain, "create_vit", lambda *_: (tower, TINY_VISION["embed_dim"])):
        model = package.ImageReward(str(folder / "med_config.json"))
    narrowed(model.mlp, TINY_TEXT["hidden_size"])
    model.preprocess = package._transform(TINY_VISION["img_size"])
    randomise(model)
    model.eval()
    images = [Image.fromarray(image) for image in make_images()]
    ids = model.blip.tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    values = {
        "ids": ids.input_ids,
        "mask": ids.attention_mask,
        "pixels": torch.stack([model.preprocess(image) for image in images]),
        "scores": torch.tensor([model.score(prompt, images) for prompt in PROMPTS]),
        "scores_of_one": torch.tensor([model.score(prompt, images[0]) for prompt in PROMPTS]),
        "score_of_a_list_of_one": torch.tensor(model.score(PROMPTS[0], images[:1])),
    }
    notes = {"text": {**MED, **TINY_TEXT}, "vision": TINY_VISION, "head": TINY_HEAD}
    save_golden(HERE / "image_reward.safetensors", model.state_dict(), values, notes)


@torch.no_grad()
def make_clip_scores(folder: Path) -> None:
    model = CLIP(**{**TINY_CLIP, "vision_width": 64})  # it makes heads 64 wide: this tower makes room for a smaller one
    model.visual = VisionTransformer(32, 8, width=TINY_CLIP["vision_width"], layers=2, heads=2, output_dim=16)
    model.eval()
    randomise(model)
    ids = clip.tokenize(PROMPTS, truncate=True)
    rows = keep_rows(model.token_embedding, ids)
    transform = clip.clip._transform(TINY_CLIP["image_resolution"])
    with mock.patch.object(clip, "load", lambda *_, **__: (model, transform)):
        cosine, aesthetic = (module(str(folder)) for module in (CLIPScore.CLIPScore, AestheticScore.AestheticScore))
    narrowed(aesthetic.mlp, TINY_CLIP["embed_dim"])
    randomise(aesthetic.mlp, seed=1)
    aesthetic.eval()
    paths = [str(folder / f"{i}.png") for i, _ in enumerate(make_images())]
    for path, image in zip(paths, make_images(), strict=True):
        Image.fromarray(image).save(path)
    values = {
        "ids": ids,
        "pixels": torch.stack([transform(Image.open(path)) for path in paths]),
        "cosines": torch.tensor([cosine.score(prompt, paths) for prompt in PROMPTS]),
        "aesthetics": torch.tensor(aesthetic.score("", paths)),
    }
    weights = {**model.state_dict(), **{f"aesthetic.{k}": v for k, v in aesthetic.mlp.state_dict().items()}}
    notes = {"clip": TINY_CLIP, "head": TINY_HEAD}
    save_golden(HERE / "clip_scores.safetensors", weights, values, notes, {"token_embedding.weight": rows})


def save_published_shapes(folder: Path) -> None:
    (folder / "med_config.json").write_text(json.dumps(MED), encoding="utf-8")
    on_cpu = mock.patch.object(torch, "linspace", partial(torch.linspace, device="cpu"))  # drop path reads its values
    with torch.device("meta"), on_cpu:
        save_shapes(HERE / "ImageReward.json", package.ImageReward(str(folder / "med_config.json")))
        save_shapes(HERE / "aesthetic.json", AestheticScore.MLP(768))


if __name__ == "__main__":
    blip.BertTokenizer = mock.Mock(from_pretrained=lambda _: tokenizer())
    with tempfile.TemporaryDirectory() as name:
        make_image_reward(Path(name))
        make_clip_scores(Path(name))
        save_published_shapes(Path(name))
