"""Finding a checkpoint and loading a part of it strictly; whatever is wrong becomes one CheckpointError."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, InputError, require
from ..hub.names import is_on_hub, split_revision
from .untrusted import (
    check_counts,
    check_model_type,
    check_shapes,
    read_config,
    read_json,
    tensor_shapes,
    weight_files,
)

if TYPE_CHECKING:
    import os

    import torch

    from ..hub.fetch import Choose

__all__ = [
    "EMBEDDED",
    "HUB_FILES",
    "REFINER_TYPE",
    "check_model_type",
    "check_refiner",
    "hub_files",
    "load_strictly",
    "part_folder",
    "quiet",
    "read_json",
    "refiner_folder",
    "refiner_parts",
    "resolve_folder",
    "weight_files",
    "whole_folder",
]

EMBEDDED = {"prip-mini": ("prip.checkpoints", "prip-mini", "refiner")}
"""Checkpoints that are installed with the package: name -> package and the path inside it."""

REFINER_TYPE = "prip"
"""What a refiner's config.json says that it is."""

HUB_FILES = ("*.json", "*.safetensors", "*README.md")
"""What is fetched from the Hub, and published there: no pickle, whatever the folder holds."""


def resolve_folder(model: str | os.PathLike[str], revision: str | None = None, choose: Choose | None = None) -> Path:
    """Return the local folder of a checkpoint, fetching it first when it is on the Hub.

    `model` is the name of an embedded checkpoint, a local folder, or "owner/name" on the Hub, there at `revision`
    (branch, tag or commit), which "owner/name@revision" tells as well; of what is there, `choose` picks the files that
    are fetched, by default all of HUB_FILES.
    Raises CheckpointError when there is none such, or the Hub cannot give it and has left no copy in the cache;
    InputError for the revision of what is not on the Hub, and for two revisions.
    """
    name, told = split_revision(str(model))
    if told is not None and revision is not None:
        raise InputError(f"revision must be left out for {str(model)!r}, which has one; {revision!r} came")
    revision = told or revision
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
    if not is_on_hub(name):
        known = ", ".join(sorted(EMBEDDED))
        raise CheckpointError(
            f"unknown checkpoint {name!r}: neither embedded ({known}) nor a folder nor an owner/name on the Hub"
        )
    from ..hub.fetch import fetch

    return fetch(name, revision, choose or hub_files)


def whole_folder(model: str | os.PathLike[str], revision: str | None = None, choose: Choose | None = None) -> Path:
    """Return the folder of a whole checkpoint, whose refiner/ has all other parts beside it.

    `choose` picks what is fetched from the Hub. Raises CheckpointError as resolve_folder does.
    """
    folder = resolve_folder(model, revision, choose)
    return folder.parent if str(model) in EMBEDDED else folder


def refiner_folder(model: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a refiner: the checkpoint's own, or refiner/ in a whole checkpoint with all its parts.

    From the Hub nothing but the refiner is fetched. Raises CheckpointError as resolve_folder and check_refiner do.
    """
    folder = resolve_folder(model, revision, _refiner_files)
    inner = folder / "refiner"
    return check_refiner(inner if inner.is_dir() and not (folder / "config.json").exists() else folder)


def check_refiner(folder: Path) -> Path:
    """Return the folder of a refiner. Raises CheckpointError where it is none, or a part is not there; for that neither
    torch nor transformers is loaded."""
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} is no PRIP checkpoint: {folder / 'config.json'} is missing")
    check_model_type(folder, REFINER_TYPE)
    for name in refiner_parts(folder):
        if not (folder / name).is_dir():
            raise CheckpointError(f"{folder / name} is missing")
    return folder


def refiner_parts(folder: Path) -> tuple[str, ...]:
    """Return the names of the folders that a refiner consists of: one whose config says that it reads no pivot has no
    encoder."""
    config = folder / "config.json"
    has_pivot = not config.is_file() or read_config(config).get("pivot_length") != 0
    return ("encoder", "decoder") if has_pivot else ("decoder",)


def part_folder(model: str | os.PathLike[str], revision: str | None = None, subfolder: str = "") -> Path:
    """Return the folder of one part of a checkpoint; from the Hub nothing else is fetched."""
    start = f"{subfolder.strip('/')}/" if subfolder else ""

    def choose(names: Sequence[str]) -> list[str]:
        return [name for name in hub_files(names) if name.startswith(start)]

    return resolve_folder(model, revision, choose) / subfolder


def hub_files(names: Sequence[str]) -> list[str]:
    """Return the names of HUB_FILES among those of a repository."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in HUB_FILES)]


def _refiner_files(names: Sequence[str]) -> list[str]:
    inner = "" if "config.json" in names else "refiner/"
    wanted = tuple(inner + own for own in ("config.json", "training.json", "README.md", "encoder/", "decoder/"))
    return [name for name in hub_files(names) if name.startswith(wanted)] if f"{inner}config.json" in names else []


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
    cls: Any,
    load: Callable[..., Any],
    folder: Path,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    **options: Any,
) -> Any:
    """Load a saved part from safetensors only, with every key accounted for.

    `cls` is the wanted class and `load` transformers' from_pretrained of it. `dtype` None means float32, or what the
    checkpoint was saved in when `device_map` puts it on an accelerator.
    Raises CheckpointError for missing, unexpected or mismatched keys (it lists them), for anything foreign, and for
    sizes that are not those of the weights, before any memory is taken for them.
    """
    check_model_type(folder, cls.config_class.model_type)
    stored = {name: shape for file in weight_files(folder) for name, shape in tensor_shapes(file).items()}
    check_counts(read_config(folder / "config.json"), len(stored), folder / "config.json")
    import torch

    if device_map is not None:
        require("accelerate", "generate")
    if dtype is None:
        dtype = "float32" if device_map is None or str(device_map) == "cpu" else "auto"
    fixed = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    try:
        with quiet():
            with torch.device("meta"):
                check_shapes(cls(cls.config_class.from_pretrained(folder)), stored, folder / "config.json")
            model, info = load(str(folder), dtype=dtype, device_map=device_map, **fixed, **options)
    except CheckpointError:
        raise
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
