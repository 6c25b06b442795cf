"""What the scripts that make golden files share. They run in environments of their own, without PRIP."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

torch.manual_seed(0)  # for the biases with which models begin

LARGEST_FILE = 300_000
"""Bytes that a golden file may have."""

PROMPTS = [
    "a cat",
    "Two Red Apples in a bowl, it's golden hour &amp; the dog’s café",
    "a very long prompt: " + ", ".join(f"castle {i} on the hill" for i in range(40)),
]
"""User prompts: short; with capitals, an entity, a curly quote and an accent; longer than any text encoder reads."""

SIZES = [(33, 53), (40, 22), (32, 32), (57, 57)]
"""Heights and widths of the images: wide with an odd margin, tall, just right for the tiny models, square."""


def bare_package(name: str) -> None:
    """Makes a package's modules importable without running its __init__, which imports what cannot be had."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.submodule_search_locations, f"{name} is not installed"
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package


def bare_torchvision() -> None:
    """torchvision without its compiled operators, which do not load beside a CPU torch; its transforms need none."""
    bare_package("torchvision")
    bare_package("torchvision.ops")
    sys.modules["torchvision"].__version__ = "0"  # type: ignore[attr-defined]


def make_images() -> list[np.ndarray]:
    """Smooth and noisy images, uint8 (height, width, 3), of all SIZES."""
    source = np.random.default_rng(0)
    images = []
    for height, width in SIZES:
        coarse = source.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST), dtype=np.int16)
        noisy = smooth + source.integers(-40, 41, smooth.shape)
        images.append(noisy.clip(0, 255).astype(np.uint8))
    return images


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Gives every parameter a random value of a size that keeps activations near 1."""
    source = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=source)
        if parameter.dim() < 2:
            parameter += 0.1 * noise
        else:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)


def keep_rows(table: torch.nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    """Zeroes the embeddings of tokens that do not occur in `ids`. Returns those that do, int64 (rows,)."""
    rows = ids.unique()
    kept = table.weight.data[rows].clone()
    table.weight.data.zero_()
    table.weight.data[rows] = kept
    return rows


def save_golden(
    path: Path,
    weights: dict[str, torch.Tensor],
    values: dict[str, torch.Tensor],
    notes: dict[str, Any],
    rows: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes weights under "weights/", images under "images/", `values` under "values/", and notes as JSON.

    Of the weights named in `rows` only these rows are written, the others being zero.
    """
    tensors = {f"values/{name}": value for name, value in values.items()}
    for name, weight in weights.items():
        kept = (rows or {}).get(name)
        tensors[f"weights/{name}"] = weight if kept is None else weight[kept]
        if kept is not None:
            tensors[f"rows/{name}"] = kept
            notes = {**notes, "shapes": {**notes.get("shapes", {}), name: list(weight.shape)}}
    tensors |= {f"images/{i}": torch.from_numpy(image) for i, image in enumerate(make_images())}
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    metadata = {"notes": json.dumps({"prompts": PROMPTS, **notes})}
    if holds(path, tensors, metadata):  # safetensors writes equal tensors in an order that differs from run to run
        print(f"{path.name}: as it was")
        return
    save_file(tensors, path, metadata=metadata)
    path.chmod(0o644)
    assert path.stat().st_size <= LARGEST_FILE, f"{path} has {path.stat().st_size} bytes"
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def holds(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bool:
    """Whether a safetensors file has these tensors, bit for bit, and these notes."""
    if not path.exists():
        return False
    with safe_open(path, framework="pt") as file:
        if file.metadata() != metadata or set(file.keys()) != set(tensors):
            return False
        return all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def save_shapes(path: Path, model: torch.nn.Module) -> None:
    """Writes the name and shape of every weight in a model of published size."""
    shapes = {name: list(weight.shape) for name, weight in model.state_dict().items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in shapes.items())
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{path.name}: {len(shapes)} weights")
