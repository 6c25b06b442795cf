"""Finding a checkpoint and loading a part of it strictly; whatever is wrong becomes one CheckpointError."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import CheckpointError, InputError, require

if TYPE_CHECKING:
    import os

    import torch

EMBEDDED = {"prip-mini": ("prip.checkpoints", "prip-mini", "refiner")}
"""Checkpoints that are installed with the package: name -> package and the path inside it."""

HUB_FILES = ["*.json", "*.safetensors", "README.md"]
"""What is fetched from the Hub: no pickle, whatever the repository holds."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the local folder of a checkpoint, fetching it first when it is on the Hub.

    `model` is the name of an embedded checkpoint, a local folder, or "owner/name" on the Hub, there at `revision`
    (branch, tag or commit). Raises CheckpointError when there is none such, or the Hub cannot be reached and has left
    no copy in the cache; InputError for the revision of what is not on the Hub.
    """
    name = str(model)
    if revision is not None and (name in EMBEDDED or Path(name).expanduser().is_dir()):
        raise InputError(f"revision must be left out for {name!r}, which is not on the Hub; {revision!r} came")
    if name in EMBEDDED:
        package, *parts = EMBEDDED[name]
        folder = Path(str(resources.files(package).joinpath(*parts)))
        if not folder.is_dir():
            raise CheckpointError(f"checkpoint {name!r} should be installed with prip, but {folder} does not exist")
        return folder
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"checkpoint {name!r} is a file; a folder was expected")
    if not _HUB_ID.fullmatch(name):
        known = ", ".join(sorted(EMBEDDED))
        raise CheckpointError(
            f"unknown checkpoint {name!r}: neither embedded ({known}) nor a folder nor an owner/name on the Hub"
        )
    return _fetch(name, revision)


def refiner_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a refiner: the checkpoint's own, or refiner/ in a whole checkpoint with all its parts."""
    folder = resolve_folder(model, revision)
    inner = folder / "refiner"
    return inner if inner.is_dir() and not (folder / "config.json").exists() else folder


def _fetch(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    wanted = f"checkpoint {repository!r}" + (f" at revision {revision!r}" if revision else "")
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=HUB_FILES, etag_timeout=5))
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{wanted}: no such revision on the Hub") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(f"{wanted}: neither a folder here nor a repository that the Hub shows you") from error
    except Exception as error:  # the HTTP client's errors differ from release to release
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{wanted}: no such folder, and the Hub could not be reached "
            f"({type(error).__name__}: {reason[0][:120] if reason else 'no reason given'})"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises CheckpointError, naming the file, when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} should hold a JSON object, it holds a {type(value).__name__}")
    return value


def check_model_type(folder: Path, model_type: str) -> None:
    """Raise CheckpointError unless `folder`/config.json is that of a `model_type`."""
    found = read_json(folder / "config.json").get("model_type")
    if found != model_type:
        raise CheckpointError(
            f"{folder / 'config.json'} is foreign: model_type {model_type!r} expected, {found!r} found"
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a saved model after opening each one.

    Raises CheckpointError, naming the file, when one is missing or damaged, or when there is only a pickle.
    """
    from safetensors import SafetensorError, safe_open

    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise CheckpointError(f"{index} holds no weight_map")
        files = [folder / name for name in sorted(set(names.values()))]
    else:
        files = [single]
    for file in files:
        if not file.is_file():
            pickles = [path.name for path in folder.glob("*.bin")] + [path.name for path in folder.glob("*.pt")]
            hint = f" ({', '.join(sorted(pickles))} is a pickle: none is ever loaded)" if pickles else ""
            raise CheckpointError(f"{file} is missing{hint}")
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged: {error}") from error
    return files


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and load reports; what they tell is raised as an error instead."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_strictly(
    load: Callable[..., Any],
    model_type: str,
    folder: Path,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    **options: Any,
) -> Any:
    """Load a saved part from safetensors only, with every key accounted for.

    `load` is transformers' from_pretrained of the wanted class, `model_type` what its config must say. `dtype` None
    means float32, or what the checkpoint was saved in when `device_map` puts it on an accelerator.
    Raises CheckpointError for missing, unexpected or mismatched keys (it lists them) and for anything foreign.
    """
    check_model_type(folder, model_type)
    weight_files(folder)
    if device_map is not None:
        require("accelerate", "generate")
    if dtype is None:
        dtype = "float32" if device_map is None or str(device_map) == "cpu" else "auto"
    fixed = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    try:
        with quiet():
            model, info = load(str(folder), dtype=dtype, device_map=device_map, **fixed, **options)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(f"{folder} cannot be loaded: {type(error).__name__}: {' '.join(lines)[:400]}") from error
    problems = [
        f"{what} {', '.join(sorted(map(str, info[key])))}"
        for what, key in (("missing", "missing_keys"), ("unexpected", "unexpected_keys"))
        if info.get(key)
    ]
    if problems:
        raise CheckpointError(f"{folder} does not fit {type(model).__name__}: {'; '.join(problems)}")
    return model
