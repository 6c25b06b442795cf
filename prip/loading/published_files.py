"""Find and read published weights, including pickles, of which only tensors are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError
from ..hub.fetch import fetch
from ..hub.names import is_on_hub, split_revision


def find_file(place: str, names: tuple[str, ...], revision: str | None = None) -> Path:
    """Return the local path of a published file: the file itself, or one of `names` in a folder or Hub repository.

    The first of `names` is fetched from the Hub. Raises CheckpointError if there is no such file, InputError if
    `revision` is given for one that is not on the Hub.
    """
    path = Path(place).expanduser()
    if not path.exists():
        return hub_file(place, names[0], revision)
    if revision is not None:
        raise InputError(f"revision: expected None for {place!r}, which is not on the Hub, got {revision!r}")
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path}: expected {' or '.join(names)}, found none")


def hub_file(repository: str, name: str, revision: str | None = None) -> Path:
    """Return the path of one file of a Hub repository (owner/name[@revision]), fetched once and verified.

    Raises CheckpointError if it cannot be fetched.
    """
    if not is_on_hub(repository):
        raise CheckpointError(f"{name}: expected a file, a folder or an owner/name on the Hub, got {repository!r}")
    repository, pinned = split_revision(repository)
    try:
        return fetch(repository, pinned or revision, lambda names: [file for file in names if file == name]) / name
    except CheckpointError as error:
        raise CheckpointError(f"{name} of {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors by name, on the CPU, of a safetensors file or a pickled state dict (bare or in "state_dict").

    Raises CheckpointError if a pickle holds more than tensors and plain values, or the file is damaged.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zipfile and safetensors each have errors of their own
        raise CheckpointError(f"{path} cannot be read as weights: {' '.join(str(error).split())[:300]}") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: expected tensors by name, got a {type(content).__name__} of other values")
    return dict(weights)
