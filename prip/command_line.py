"""Errors and warnings of `prip` and `prip-train` on one line."""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn, ParamSpec

from .errors import PripWarning, any_of, meant

Arguments = ParamSpec("Arguments")
_TYPES = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """Argument parser that reports an error on one line, under the name of its subcommand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """Print an error on one line, with a pointer to --help, and exit with status 2."""
        flags = [text for action in self._actions for text in action.option_strings]
        sentence = in_words(message, flags, example(self.epilog))
        print(f"{self.prog}: error: {sentence} (all arguments: {self.prog} --help)", file=sys.stderr)
        self.exit(2)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Return the parsed arguments, or exit with status 2 if one is unknown."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._chosen(parsed)._refuse(unknown)
        return parsed

    def _chosen(self, parsed: argparse.Namespace) -> Parser:
        """Return the parser of the chosen subcommand, or this one."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and action.choices:
                return action.choices.get(getattr(parsed, action.dest), self)
        return self

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        flag = next((word for word in unknown if re.match("--?[a-zA-Z]", word)), None)
        if flag is not None:
            self.error(f"unrecognized arguments: {flag}")
        names = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        sentence = f"too many arguments: expected {' and '.join(names) or 'none'}, got {unknown[0]!r} as well"
        self.error(sentence + ("; put quotes around text with spaces" if names else ""))


def in_words(message: str, flags: Sequence[str], example: str = "") -> str:
    """Return argparse's message as "argument: expected ..., got ...".

    `flags` are all known flags, for "did you mean"; `example` is a command to show if an argument is missing.
    """
    text = " ".join(message.split()).removeprefix("argument ")
    if match := re.fullmatch(r"unrecognized arguments: (.*)", text):
        return unknown_flag(match[1].split()[0], flags)
    if match := re.fullmatch(r"(.+?): invalid choice: (.+?) \(choose from (.*)\)", text):
        choices = [choice.strip("'") for choice in match[3].split(", ")]
        hint = meant(match[2].strip("'"), [*choices, *flags])
        return f"{match[1]}: expected {any_of(choices)}, got {match[2]}{hint}"
    if match := re.fullmatch(r"(.+?): invalid (\w+) value: (.*)", text):
        return f"{match[1]}: expected {_TYPES.get(match[2], match[2])}, got {match[3]}"
    if match := re.fullmatch(r"(.+?): expected (?:one|at least one) argument", text):
        return f"{match[1]}: expected a value, got none"
    if match := re.fullmatch(r"the following arguments are required: (.*)", text):
        names = match[1].split(", ")
        shown = f", as in: {example}" if example else ""
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing{shown}"
    return text


def unknown_flag(flag: str, flags: Sequence[str]) -> str:
    """Return the error for an unknown flag, with the closest known flag as a hint."""
    return f"unknown argument {flag}{meant(flag, flags)}"


def example(epilog: str | None) -> str:
    """Return the first example at the end of a help text, or ""."""
    lines = [line.strip() for line in (epilog or "").splitlines() if line.startswith("  ")]
    return lines[0] if lines else ""


def ends_with_its_reader(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorate a main function: it returns 141 without a traceback if the reader of its output leaves (`| head -1`)."""

    @wraps(main)
    def run(*arguments: Arguments.args, **options: Arguments.kwargs) -> int:
        try:
            try:
                return main(*arguments, **options)
            finally:
                print(end="", flush=True)  # Python only reports an error of the flush at exit
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ENOSPC):
                raise
            if error.errno == errno.ENOSPC:
                print(f"{os.path.basename(sys.argv[0])}: error: {error.strerror}", file=sys.stderr)
            # What is still buffered has nowhere to go.
            for stream in (sys.stdout, sys.stderr):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            return 141 if error.errno == errno.EPIPE else 1

    return run


@contextmanager
def printed_warnings(command: str) -> Iterator[None]:
    """Print each PripWarning on one line of standard error, without the source line that Python adds."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", PripWarning)
        show = warnings.showwarning

        def print_line(message: Any, category: type[Warning], *source: Any, **options: Any) -> None:
            if issubclass(category, PripWarning):
                print(f"{command}: warning: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                show(message, category, *source, **options)

        warnings.showwarning = print_line
        yield
