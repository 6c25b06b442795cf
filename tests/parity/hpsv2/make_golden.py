"""Golden files of hpsv2: its score of a tiny model, its preprocessing, the names and shapes of ViT-H-14.

The package as released lacks the merges of its tokenizer: they are taken from open_clip_torch, where it has them from.
It imports a name from `turtle` that it never uses: an empty module stands for it where Tk is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
import types
from pathlib import Path

import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from common import PROMPTS, bare_torchvision, keep_rows, make_images, randomise, save_golden, save_shapes  # noqa: E402

MERGES = "bpe_simple_vocab_16e6.txt.gz"
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 2},
}


def installed(package: str) -> Path:
    """The folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is not installed"
    return Path(spec.origin).parent


bare_torchvision()
sys.modules["turtle"] = types.ModuleType("turtle")
sys.modules["turtle"].forward = None  # type: ignore[attr-defined]
copy = installed("hpsv2") / "src" / "open_clip" / MERGES
if not copy.exists():
    shutil.copyfile(installed("open_clip") / MERGES, copy)

from hpsv2 import img_score  # noqa: E402
from hpsv2.src import open_clip  # noqa: E402

# What img_score.initialize_model asks for besides the model's name and its pretrained weights.
OPTIONS = {"precision": "amp", "device": "cpu", "light_augmentation": True, "aug_cfg": {}, "output_dict": True}


@torch.no_grad()
def make(folder: Path) -> None:
    (folder / "tiny.json").write_text(json.dumps(TINY), encoding="utf-8")
    open_clip.add_model_config(folder / "tiny.json")
    model, _, transform = open_clip.create_model_and_transforms("tiny", None, **OPTIONS)
    randomise(model)
    ids = open_clip.get_tokenizer("ViT-H-14")(PROMPTS)
    rows = keep_rows(model.token_embedding, ids)
    checkpoint = folder / "HPS_v2_compressed.pt"
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    randomise(model, seed=1)  # score() is to load the checkpoint
    img_score.model_dict.update(model=model, preprocess_val=transform)
    images = [Image.fromarray(image) for image in make_images()]
    scores = [[float(s) for s in img_score.score(images, prompt, cp=str(checkpoint))] for prompt in PROMPTS]
    values = {"ids": ids, "pixels": torch.stack([transform(image) for image in images]), "scores": torch.tensor(scores)}
    save_golden(HERE / "tiny.safetensors", weights, values, {"tiny": TINY}, {"token_embedding.weight": rows})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
    published = json.loads((installed("hpsv2") / "src/open_clip/model_configs/ViT-H-14.json").read_text())
    with torch.device("meta"):
        save_shapes(HERE / "ViT-H-14.json", open_clip.CLIP(**published))
