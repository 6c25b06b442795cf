"""Golden files of open_clip_torch: its CLIP with either activation, its preprocessing, its tokenizer."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from common import PROMPTS, bare_torchvision, keep_rows, make_images, randomise, save_golden, save_shapes  # noqa: E402

bare_torchvision()

import open_clip  # noqa: E402

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 2},
}


@torch.no_grad()
def make(name: str, quick_gelu: bool) -> None:
    model = open_clip.CLIP(**TINY, quick_gelu=quick_gelu).eval()
    randomise(model)
    ids = open_clip.SimpleTokenizer()(PROMPTS)
    rows = keep_rows(model.token_embedding, ids)
    transform = open_clip.image_transform(32, is_train=False)
    pixels = torch.stack([transform(Image.fromarray(image)) for image in make_images()])
    texts, images = model.encode_text(ids, normalize=True), model.encode_image(pixels, normalize=True)
    values = {"ids": ids, "pixels": pixels, "cosines": texts @ images.T}
    notes = {"version": open_clip.__version__, "quick_gelu": quick_gelu, "tiny": TINY}
    save_golden(HERE / name, model.state_dict(), values, notes, {"token_embedding.weight": rows})


if __name__ == "__main__":
    make("gelu.safetensors", False)
    make("quick_gelu.safetensors", True)
    with torch.device("meta"):
        save_shapes(HERE / "ViT-L-14.json", open_clip.CLIP(**open_clip.get_model_config("ViT-L-14"), quick_gelu=True))
