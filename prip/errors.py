"""Errors and warnings of PRIP. A message says which argument, what was wanted and what came."""

from __future__ import annotations

import importlib
from types import ModuleType


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
