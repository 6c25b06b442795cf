"""Errors and warnings of PRIP. A message names the argument, what was expected and what it got."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, ModuleType


class PripError(Exception):
    """Base of every error that PRIP raises on purpose."""


class InputError(PripError, ValueError):
    """An argument cannot be used."""


class CheckpointError(PripError, OSError):
    """A checkpoint is unknown, unreachable, incomplete or not one of PRIP's."""


class MissingExtraError(PripError, ImportError):
    """An optional dependency is not installed."""


class BrokenPackageError(PripError, ImportError):
    """A package beside PRIP is installed, and cannot be imported."""


class PripWarning(UserWarning):
    """The call succeeded with an unexpected result, such as a prompt that was returned unchanged."""


def warn(message: str) -> None:
    """Warn with a PripWarning that points to the line outside of PRIP that called it."""
    frame: FrameType | None = sys._getframe()
    level = 1
    while frame is not None and str(frame.f_globals.get("__name__")).split(".")[0] == "prip":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, PripWarning, stacklevel=level)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the text of each PripWarning in a list, filled at the end of the block, instead of showing it."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PripWarning)
        yield notes
    notes += [str(warning.message) for warning in caught if issubclass(warning.category, PripWarning)]


_COUNTERPARTS = {"model": "checkpoint", "checkpoint": "model"}
"""Flags of one command that another command has under a different name."""
_PACKAGES = {"PIL": "Pillow", "yaml": "PyYAML"}
"""Modules whose package has another name."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Dotted name to import.
        extra: The extra of the package prip that installs it.

    Raises:
        MissingExtraError: The module is not installed; the message has the command that installs the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise _missing(module, extra) from error


_COMPILED = ("torchvision", "torchaudio", "torchao", "xformers", "flash_attn")
"""Packages that are compiled for one version of torch. transformers and diffusers import them if they are installed."""


@contextmanager
def broken_packages() -> Iterator[None]:
    """Raise a BrokenPackageError for an import inside the block that fails in a package made for another torch."""
    try:
        yield
    except BrokenPackageError:
        raise
    except (ImportError, RuntimeError) as error:
        package = _failing_package(error)
        if package is None:
            raise
        raise BrokenPackageError(
            f"{package} cannot be imported: {_first_cause(error)}; install the version that fits this torch, or "
            f"uninstall it, since {_without(package)}"
        ) from error


def _without(package: str) -> str:
    return "only int8 weights need it" if package == "torchao" else "PRIP does not need it"


def _first_cause(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _failing_package(error: BaseException | None) -> str | None:
    """Return the package of _COMPILED whose import an error, or one of its causes, ended."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            package = str(frame.f_globals.get("__name__")).partition(".")[0]
            if package in _COMPILED and frame.f_code.co_name == "<module>":
                return package
        error = error.__cause__ or error.__context__
    return None


def check_installed(module: str, extra: str) -> None:
    """Raise the error of `require` if an optional dependency is not installed, without importing it."""
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra)


def _missing(module: str, extra: str) -> MissingExtraError:
    package = _PACKAGES.get(module.partition(".")[0], module)
    return MissingExtraError(f'{package} is not installed; run in a clone of PRIP: pip install ".[{extra}]"')


def meant(word: str, known: Sequence[str]) -> str:
    """Return "; did you mean ...?" with a similar known word or the only completion, else ""."""
    bare = word.partition("=")[0].strip("-")
    names = {candidate.lstrip("-"): candidate for candidate in known}
    near = difflib.get_close_matches(bare, names, n=1) or [_COUNTERPARTS.get(bare, "")]
    completions = [name for name in names if bare and name.startswith(bare)]
    candidates = [name for name in near if name in names] or (completions if len(completions) == 1 else [])
    return f"; did you mean {names[candidates[0]]}?" if candidates else ""


def any_of(words: Sequence[str]) -> str:
    """Return "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
