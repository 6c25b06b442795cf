"""Pivots of many images on disk: `pivots.safetensors`, one fp16 tensor "pivots", and `index.parquet` beside it.

Reading maps the file into memory, so that a cache may be larger than it; writing streams.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prip.errors import CheckpointError, InputError

from ..atomic import replace_folder

_HEADER_BYTES = 256
PIVOTS, INDEX = "pivots.safetensors", "index.parquet"


class PivotCache:
    """The pivots in `folder`, by image name. Raises CheckpointError if it holds no pivot cache."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for name in (PIVOTS, INDEX):
            if not (self.folder / name).is_file():
                raise CheckpointError(f"pivot cache {self.folder}: {name} is missing")
        with (self.folder / PIVOTS).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(length)).get("pivots", {})
        if entry.get("dtype") != "F16" or len(entry["shape"]) != 3:
            raise CheckpointError(
                f"pivot cache {self.folder}: wanted a 3-dimensional fp16 tensor 'pivots', got {entry}"
            )
        offset = 8 + length + entry["data_offsets"][0]
        self._pivots = np.memmap(self.folder / PIVOTS, np.float16, "r", offset, tuple(entry["shape"]))
        self.pivot_length, self.pivot_width = entry["shape"][1:]
        index = pd.read_parquet(self.folder / INDEX)
        self._rows = dict(zip(index["image_name"], index["row"], strict=True))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> list[str]:
        """Image names, in the order in which they were added."""
        return list(self._rows)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, names: Sequence[str]) -> Tensor:
        """Returns the pivots of these images: float32 (len(names), pivot_length, pivot_width).

        Raises InputError for a name that is not in the cache.
        """
        missing = [name for name in names if name not in self._rows]
        if missing:
            raise InputError(
                f"pivot cache {self.folder}: no pivot of {missing[0]!r} ({len(missing)} names are missing)"
            )
        rows = [self._rows[name] for name in names]
        return torch.from_numpy(self._pivots[rows].astype(np.float32))


class PivotCacheWriter:
    """Collects pivots, and makes `folder` a PivotCache at `close`; before that, `folder` is left as it was.

    As a context manager it closes unless an exception passes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._path = self.folder.with_name(f"{self.folder.name}.{PIVOTS}.tmp")
        self._file = self._path.open("wb")
        self._file.write(bytes(_HEADER_BYTES))
        self._names: dict[str, None] = {}
        self._shape: tuple[int, int] | None = None

    def __enter__(self) -> PivotCacheWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
            self._path.unlink()

    def add(self, names: Sequence[str], pivots: Tensor) -> None:
        """Adds pivots (len(names), pivot_length, pivot_width), of any float type; they are stored in fp16.

        Raises InputError for a name given twice, a shape unlike the first one's, or a number that fp16 cannot hold.
        """
        if pivots.ndim != 3 or len(names) != len(pivots):
            raise InputError(f"pivots: wanted ({len(names)}, pivot_length, pivot_width), got {tuple(pivots.shape)}")
        shape = (pivots.shape[1], pivots.shape[2])
        if self._shape not in (None, shape):
            raise InputError(f"pivots: wanted {self._shape} each as before, got {shape}")
        stored = pivots.detach().cpu().to(torch.float16)
        if not stored.isfinite().all():
            raise InputError("pivots: wanted numbers that fp16 can hold, got nan, inf or more than 65,504")
        for name in names:
            if name in self._names:
                raise InputError(f"names: wanted each image once, got {name!r} again")
            self._names[name] = None
        self._shape = shape
        self._file.write(np.ascontiguousarray(stored.numpy()).tobytes())

    def close(self) -> None:
        """Brings the cache to the disk, in the place of an older one. Raises InputError if no pivot was added."""
        if self._shape is None:
            raise InputError("pivots: wanted at least one image before close, got none")
        shape = (len(self._names), *self._shape)
        entry = {"dtype": "F16", "shape": shape, "data_offsets": [0, 2 * int(np.prod(shape))]}
        header = json.dumps({"pivots": entry}, separators=(",", ":")).encode().ljust(_HEADER_BYTES - 8)
        self._file.seek(0)
        self._file.write(len(header).to_bytes(8, "little") + header)
        self._file.close()
        replace_folder(self.folder, self._fill)

    def _fill(self, folder: Path) -> None:
        self._path.rename(folder / PIVOTS)
        index = pd.DataFrame({"image_name": list(self._names), "row": range(len(self._names))})
        index.to_parquet(folder / INDEX, index=False)
