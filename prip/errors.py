"""Errors and warnings of PRIP. A message says which argument, what was wanted and what came."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType


class PripError(Exception):
    """Base of every error that PRIP raises on purpose."""


class InputError(PripError, ValueError):
    """What the caller passed cannot be used."""


class CheckpointError(PripError, OSError):
    """A checkpoint is unknown, unreachable, incomplete or foreign."""


class MissingExtraError(PripError, ImportError):
    """An optional dependency is not installed."""


class PripWarning(UserWarning):
    """The call went through, but not as one would expect: a prompt was left unchanged, say."""


def warn(message: str) -> None:
    """Warn with a PripWarning of the line that called PRIP, whatever of PRIP's own lies between."""
    frame: FrameType | None = sys._getframe()
    level = 1
    while frame is not None and str(frame.f_globals.get("__name__")).split(".")[0] == "prip":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, PripWarning, stacklevel=level)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Give a list that is empty within, and holds the text of each PripWarning at the end: no warning is shown."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PripWarning)
        yield notes
    notes += [str(one.message) for one in caught if issubclass(one.category, PripWarning)]


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    `module` is the dotted name to import, `extra` the extra of the package prip that installs it. Returns the module.
    Raises MissingExtraError, which names the command that installs the extra, when the module is not there.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise MissingExtraError(f'{module} is not installed; install it with: pip install "prip[{extra}]"') from error
