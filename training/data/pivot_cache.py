"""Pivots of many images on disk: shards `*.safetensors`, each with one fp16 tensor "pivots", and `index.parquet`.

The index gives the shard and row of each image, and is written last. Shards are memory-mapped, so a cache may exceed
memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save
from torch import Tensor

from prip.errors import CheckpointError, InputError
from prip.files import hash_of_texts, replace_file

INDEX, SINGLE = "index.parquet", "pivots.safetensors"
"""SINGLE is the shard if the index has no column of shards."""


class PivotCache:
    """The pivots in `folder`, by image name. Raises CheckpointError if the folder is no pivot cache."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / INDEX).is_file():
            raise CheckpointError(f"pivot cache {self.folder}: {INDEX} is missing")
        index = pd.read_parquet(self.folder / INDEX)
        shards = index["shard"] if "shard" in index else pd.Series([SINGLE] * len(index), dtype="str")
        self._shard_of, self._shards = pd.factorize(shards)
        self._row_of = index["row"].to_numpy(np.int64)
        self._numbers = dict(zip(index["image_name"], range(len(index)), strict=True))
        self._maps: dict[int, np.memmap] = {}
        missing = [name for name in self._shards if not (self.folder / name).is_file()]
        if missing or not len(index):
            raise CheckpointError(f"pivot cache {self.folder}: {missing[0] if missing else 'every image'} is missing")
        self.pivot_length, self.pivot_width = self._map(0).shape[1:]

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def names(self) -> list[str]:
        """Image names, in the order of the index."""
        return list(self._numbers)

    def __contains__(self, name: str) -> bool:
        return name in self._numbers

    def __getitem__(self, names: Sequence[str]) -> Tensor:
        """Return the pivots of these images: float32 (len(names), pivot_length, pivot_width).

        Raise InputError for an unknown name and CheckpointError for a damaged shard.
        """
        missing = [name for name in names if name not in self._numbers]
        if missing:
            raise InputError(
                f"pivot cache {self.folder}: no pivot of {missing[0]!r} ({len(missing)} names are missing)"
            )
        numbers = np.array([self._numbers[name] for name in names], np.int64)
        result = np.empty((len(numbers), self.pivot_length, self.pivot_width), np.float32)
        shards = self._shard_of[numbers]
        for shard in np.unique(shards):
            chosen = shards == shard
            result[chosen] = self._map(int(shard))[self._row_of[numbers[chosen]]]
        return torch.from_numpy(result)

    def _map(self, shard: int) -> np.memmap:
        if shard not in self._maps:
            self._maps[shard] = _map_shard(self.folder / self._shards[shard])
        return self._maps[shard]


def _map_shard(path: Path) -> np.memmap:
    """Return the pivots in a shard as a memory map: fp16 (n, pivot_length, pivot_width)."""
    try:
        header, start = _header(path)
        entry = header["pivots"]
        first, last = entry["data_offsets"]
        if entry["dtype"] != "F16" or len(entry["shape"]) != 3:
            raise ValueError(f"expected a 3-dimensional fp16 tensor 'pivots', got {entry}")
        if last - first != 2 * int(np.prod(entry["shape"])) or start + last != path.stat().st_size:
            raise ValueError("truncated file or invalid header")
        return np.memmap(path, np.float16, "r", start + first, tuple(entry["shape"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"pivot cache {path.parent}: {path.name} cannot be read: {error}") from error


def _header(path: Path) -> tuple[dict, int]:
    """Return the header of a safetensors file and the offset of its data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length < path.stat().st_size:
            raise ValueError("truncated file or invalid header")
        return json.loads(file.read(length)), 8 + length


def write_shard(path: Path, names: Sequence[str], pivots: np.ndarray | Tensor) -> None:
    """Write pivots (len(names), pivot_length, pivot_width), of any float type, as fp16, atomically.

    Raise InputError for another shape, a repeated name or a number that fp16 cannot represent.
    """
    tensor = torch.as_tensor(pivots).detach().cpu()
    if tensor.ndim != 3 or len(names) != len(tensor) or not len(names):
        raise InputError(f"pivots: expected ({len(names)}, pivot_length, pivot_width), got {tuple(tensor.shape)}")
    if len(set(names)) < len(names):
        raise InputError(f"names: expected each image once, got {len(names) - len(set(names))} again")
    stored = tensor.to(torch.float16)
    if not stored.isfinite().all():
        raise InputError("pivots: expected numbers that fp16 can hold, got nan, inf or more than 65,504")
    content = save({"pivots": np.ascontiguousarray(stored.numpy())}, {"names": hash_of_texts(names)})
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def is_shard_of(path: Path, names: Sequence[str]) -> bool:
    """Return whether `path` is a complete shard of these images in this order."""
    try:
        return len(_map_shard(path)) == len(names) and _header(path)[0]["__metadata__"]["names"] == hash_of_texts(names)
    except (CheckpointError, KeyError):
        return False


def write_index(folder: Path, shards: Mapping[str, Sequence[str]]) -> None:
    """Write the index of `shards` (file name to image names), which completes the PivotCache in `folder`.

    Other shards in the folder are removed. Raise InputError for a repeated name or no images.
    """
    frames = [
        pd.DataFrame({"image_name": names, "row": range(len(names)), "shard": file}) for file, names in shards.items()
    ]
    index = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"image_name": []})
    if index.empty:
        raise InputError("pivots: expected at least one image, got none")
    repeated = index["image_name"].duplicated()
    if repeated.any():
        raise InputError(f"names: expected each image once, got {index['image_name'][repeated].iloc[0]!r} again")
    replace_file(folder / INDEX, lambda temporary: index.to_parquet(temporary, index=False))
    for path in folder.glob("*.safetensors"):
        if path.name not in shards:
            path.unlink()
