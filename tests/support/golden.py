"""Reading what the scripts in tests/parity have written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PARITY = Path(__file__).resolve().parent.parent / "parity"


@dataclass(frozen=True)
class Golden:
    """Weights, inputs and outputs of a reference package."""

    weights: dict[str, Tensor]
    """By the package's own names."""
    values: dict[str, Tensor]
    """What it made of the inputs."""
    images: list[Tensor]
    """uint8 (1, 3, height, width) each."""
    notes: dict[str, Any]
    """`prompts` and the sizes of the model."""


def read_golden(name: str) -> Golden:
    """Reads a golden file, by its path below tests/parity; rows of weights that were left out are zero."""
    from safetensors import safe_open

    with safe_open(PARITY / name, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)

    def under(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    weights = under("weights/")
    for key, rows in under("rows/").items():
        whole = torch.zeros(notes["shapes"][key])
        whole[rows] = weights[key]
        weights[key] = whole
    images = under("images/")
    pictures = [images[key].permute(2, 0, 1)[None].contiguous() for key in sorted(images)]
    return Golden(weights, under("values/"), pictures, notes)


def read_shapes(name: str) -> dict[str, Tensor]:
    """Weights without values of a model of published size, by the package's own names."""
    shapes = json.loads((PARITY / name).read_text(encoding="utf-8"))
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
