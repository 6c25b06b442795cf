"""Finding and reading the files in which networks were published, pickles among them: tensors only, no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError
from ..hub.fetch import fetch
from ..hub.names import is_on_hub, split_revision


def find_file(place: str, names: tuple[str, ...], revision: str | None = None) -> Path:
    """The local path of a published file: `place` is the file, a folder that holds one of `names`, or a Hub id.

    From the Hub, at `revision`, comes the first of `names`. Raises CheckpointError where there is none; InputError for
    the revision of what is not on the Hub.
    """
    path = Path(place).expanduser()
    if not path.exists():
        return hub_file(place, names[0], revision)
    if revision is not None:
        raise InputError(f"revision must be left out for {place!r}, which is not on the Hub; {revision!r} came")
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path} holds no {' and no '.join(names)}")


def hub_file(repository: str, name: str, revision: str | None = None) -> Path:
    """One file of a Hub repository, owner/name or owner/name@revision, fetched once and verified.

    Raises CheckpointError where it cannot be had.
    """
    if not is_on_hub(repository):
        raise CheckpointError(f"{name}: {repository!r} is no file or folder here, and no owner/name on the Hub")
    repository, told = split_revision(repository)
    try:
        return fetch(repository, told or revision, lambda names: [one for one in names if one == name]) / name
    except CheckpointError as error:
        raise CheckpointError(f"{name} of {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, of a safetensors file or of a pickled state dict, bare or under "state_dict".

    Raises CheckpointError for a pickle that holds more than tensors and plain values, and for what is damaged.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zipfile and safetensors each have errors of their own
        raise CheckpointError(f"{path} cannot be read as weights: {' '.join(str(error).split())[:300]}") from error
    weights = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} should hold tensors by name, it holds a {type(held).__name__} of something else")
    return dict(weights)
