"""PRIP: prompt refinement with image pivot. `refine("a cat")` returns a prompt that suits an image model.

Names are loaded on first use: `import prip` loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .import_warnings import hush_imports

if TYPE_CHECKING:
    from . import errors
    from .control.negative import negative_prompt
    from .errors import BrokenPackageError, CheckpointError, InputError, MissingExtraError, PripError, PripWarning
    from .modeling import PreferenceEncoder, PripConfig, PripModel, PromptDecoder
    from .refiner import Refiner, refine

hush_imports()

_root = Path(__file__).resolve().parent.parent
if (_root / "setup.cfg").is_file() and (_root / "training").is_dir():
    __path__.append(str(_root))  # in a checkout, training/, inference/ and checkpoints/ are siblings of prip/

_HOMES = {
    **dict.fromkeys(("refine", "Refiner"), "refiner"),
    "negative_prompt": "control.negative",
    **dict.fromkeys(("PripModel", "PripConfig", "PreferenceEncoder", "PromptDecoder"), "modeling"),
    **dict.fromkeys(
        ("PripError", "InputError", "CheckpointError", "MissingExtraError", "BrokenPackageError", "PripWarning"),
        "errors",
    ),
}

__all__ = [
    "BrokenPackageError",
    "CheckpointError",
    "InputError",
    "MissingExtraError",
    "PreferenceEncoder",
    "PripConfig",
    "PripError",
    "PripModel",
    "PripWarning",
    "PromptDecoder",
    "Refiner",
    "errors",
    "negative_prompt",
    "refine",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("prip")
    if name == "errors":
        return import_module(".errors", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'prip' has no attribute {name!r}")
    from .errors import broken_packages

    with broken_packages():
        return getattr(import_module("." + _HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
