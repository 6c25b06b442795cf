"""Read untrusted files: no code is run, nothing outside the folder is opened, and no size is trusted."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

JSON_BYTES = 1 << 28
"""Largest JSON file that is read: about four times the largest known tokenizer."""

SPARE_LAYERS = 1_000
"""How far a number of layers, heads or experts may exceed the number of tensors."""

SPARE_ELEMENTS = 1 << 30
"""Elements that a model may have beyond twice those in its weights, for masks and tables that are not stored."""

_CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines", "transformers_weights")
_CHOSEN_KEYS = ("attn_implementation", "_attn_implementation", "_experts_implementation", "experts_implementation")
_LOOP_KEY = re.compile(r"layer|block|expert|head|stage|depth|group")
_NO_LOOP_KEY = re.compile(r"size|dim|width|length|window|_ids?$")
_PICKLE_START = re.compile(rb"PK\x03\x04|\x80[\x02-\x05][^\x00]")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises CheckpointError, which names the file, if there is none."""
    try:
        if path.exists() and not path.is_file():  # a device or a pipe has no end
            raise CheckpointError(f"{path} cannot be read as JSON: expected a file, got something else")
        check_inside(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(JSON_BYTES + 1) if size <= JSON_BYTES else b""
        if max(size, len(content)) > JSON_BYTES:  # a file may grow while it is read
            raise CheckpointError(f"{path} is too large to be read as JSON: {max(size, len(content)):,} bytes")
        value = json.loads(content.decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except CheckpointError:
        raise
    except RecursionError as error:
        raise CheckpointError(f"{path} cannot be read as JSON: it is nested too deeply") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got a {type(value).__name__}")
    return value


def read_config(path: Path, ignored: Collection[str] = ()) -> dict[str, Any]:
    """Return a model's config. Raises CheckpointError if it refers to code or other files, at any depth.

    `ignored` are keys of such references that have no effect for this model.
    """
    config = read_json(path)
    for key, value in _entries(config):
        if key in _CODE_KEYS and key not in ignored and value:
            raise CheckpointError(f"{path} is refused: it names code or files of its own ({key}), which are never used")
        if key in _CHOSEN_KEYS and isinstance(value, str) and not value.isidentifier():
            raise CheckpointError(f"{path} is refused: {key} is {value!r}, which would be fetched and run")
    return config


def check_model_type(config: Mapping[str, Any], model_type: str, file: Path) -> None:
    """Raise CheckpointError unless a config, read from `file`, is that of a `model_type`."""
    found = config.get("model_type")
    if found != model_type:
        raise CheckpointError(f"{file} is foreign: expected model_type {model_type!r}, got {found!r}")


def check_no_adapter(folder: Path) -> None:
    """Raise CheckpointError if an adapter is beside a model: the model that it names would be loaded instead."""
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(f"{folder / 'adapter_config.json'} is foreign: it would load another model instead")


class Weights(Mapping[str, "Tensor"]):
    """The tensors in safetensors files, by name: headers are read and checked at once, a tensor when it is used."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Open each file. Raises CheckpointError, which names the file, if one is damaged, a pickle, or a link that
        leads out of its folder."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}
        for file in files:
            check_inside(file)
            tensors = _open_tensors(file)
            for name in tensors.keys():  # noqa: SIM118
                self.shapes[name] = tuple(tensors.get_slice(name).get_shape())
                self._files[name] = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def open_weights(folder: Path) -> Weights:
    """Return the weights of a saved model. Raises CheckpointError as `Weights` does, and for a missing file."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if single.is_file() or not index.is_file():
        files = [single]
    else:
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise CheckpointError(f"{index}: expected a weight_map")
        files = [folder / _shard_name(name, index) for name in sorted(set(map(str, names.values())))]
    for file in files:
        if not file.is_file():
            pickles = [path.name for path in folder.glob("*.bin")] + [path.name for path in folder.glob("*.pt")]
            hint = f" ({', '.join(sorted(pickles))} is a pickle: none is ever loaded)" if pickles else ""
            raise CheckpointError(f"{file} is missing{hint}")
    return Weights(files)


def _open_tensors(file: Path) -> Any:
    """Open a safetensors file, whose header is checked against the length of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError, RecursionError) as error:
        with file.open("rb") as stream:
            is_pickle = _PICKLE_START.match(stream.read(4))
        if is_pickle:
            raise CheckpointError(f"{file} is a pickle under another name: none is ever loaded") from error
        raise CheckpointError(f"{file} is damaged: {error}") from error


def check_inside(file: Path) -> None:
    """Raise CheckpointError if a file is a link out of its folder, except into the blobs of the Hub's cache."""
    target, folder = file.resolve(), file.parent.resolve()
    if target.is_relative_to(folder):
        return
    storages = [parent.parent.parent for parent in file.absolute().parents if parent.parent.name == "snapshots"]
    blobs = [parent.resolve() / "blobs" for storage in storages for parent in (storage, storage.parent)]
    if not any(target.is_relative_to(blob_folder) for blob_folder in blobs):
        raise CheckpointError(f"{file} is refused: it is a link that leads out of its folder, to {target}")


def check_counts(config: Mapping[str, Any], tensors: int, where: Path) -> None:
    """Raise CheckpointError if a config has more layers, heads or experts than fit into a number of tensors.

    The constructor of a model loops over such counts before any shapes can be compared.
    """
    for key, value in _entries(config):
        counts = bool(_LOOP_KEY.search(key)) and not _NO_LOOP_KEY.search(key)
        if counts and isinstance(value, int) and abs(value) > tensors + SPARE_LAYERS:
            raise CheckpointError(f"{where} is refused: {key} is {value:,}, the weights are {tensors:,} tensors")


def check_shapes(model: Any, stored: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """Raise CheckpointError if a model does not have the shapes in the headers of its weights.

    `model` is on the meta device, where it takes no memory. Names that only one of the two has are reported when the
    weights are loaded; the memory for them is bounded by the size of the weights.
    """
    for name, tensor in model.state_dict().items():
        if name in stored and tuple(tensor.shape) != stored[name]:
            raise CheckpointError(
                f"{where} does not fit its weights: {name} would be {tuple(tensor.shape)}, {stored[name]} is stored"
            )
    stored_elements = sum(map(math.prod, stored.values()))
    elements = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if elements > 2 * stored_elements + SPARE_ELEMENTS:
        sizes = f"it describes {elements:,} elements, its weights hold {stored_elements:,}"
        raise CheckpointError(f"{where} is refused: {sizes}")


def _shard_name(name: str, index: Path) -> str:
    if name != Path(name).name or "\\" in name or not name.endswith(".safetensors"):
        raise CheckpointError(f"{index} is refused: {name!r} is not a safetensors file beside it")
    return name


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from ((str(key), entry) for key, entry in value.items())
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
