"""Argument errors of `prip` and `prip-train`: one line that names the argument, what was expected and what it got."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from .errors import PripWarning

KINDS = {"int": "a whole number", "float": "a number"}
"""argparse's names of types, in words."""


class Parser(argparse.ArgumentParser):
    """Argument parser that reports an error in one line, in the name of the subcommand that it belongs to."""

    def error(self, message: str) -> NoReturn:
        """Print an error in one line, with a pointer to --help, and exit with status 2."""
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
        """Return the parser of the subcommand that was chosen, or this one."""
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

    Args:
        message: What argparse says.
        flags: All known flags, for "did you mean".
        example: A command to show if an argument is missing.
    """
    text = " ".join(message.split()).removeprefix("argument ")
    if found := re.fullmatch(r"unrecognized arguments: (.*)", text):
        return unknown_flag(found[1].split()[0], flags)
    if found := re.fullmatch(r"(.+?): invalid choice: (.+?) \(choose from (.*)\)", text):
        choices = [choice.strip("'") for choice in found[3].split(", ")]
        hint = meant(found[2].strip("'"), [*choices, *flags])
        return f"{found[1]}: expected {any_of(choices)}, got {found[2]}{hint}"
    if found := re.fullmatch(r"(.+?): invalid (\w+) value: (.*)", text):
        return f"{found[1]}: expected {KINDS.get(found[2], found[2])}, got {found[3]}"
    if found := re.fullmatch(r"(.+?): expected (?:one|at least one) argument", text):
        return f"{found[1]}: expected a value, got none"
    if found := re.fullmatch(r"the following arguments are required: (.*)", text):
        names = found[1].split(", ")
        shown = f", as in: {example}" if example else ""
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing{shown}"
    return text


def unknown_flag(flag: str, flags: Sequence[str]) -> str:
    """Return an error for an unknown flag, with the known flag that was probably meant."""
    return f"unknown argument {flag}{meant(flag, flags)}"


def meant(word: str, known: Sequence[str]) -> str:
    """Return "; did you mean ...?" if one known word is similar, or the only one that starts like this; else ""."""
    word = word.partition("=")[0]
    near = difflib.get_close_matches(word, known, n=1)
    bare = word.strip("-")
    completions = [candidate for candidate in known if bare and candidate.lstrip("-").startswith(bare)]
    candidates = near or (completions if len(completions) == 1 else [])
    return f"; did you mean {candidates[0]}?" if candidates else ""


def any_of(words: Sequence[str]) -> str:
    """Return "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def example(epilog: str | None) -> str:
    """Return the first command among the examples that end a help text, or ""."""
    lines = [line.strip() for line in (epilog or "").splitlines() if line.startswith("  ")]
    return lines[0] if lines else ""


@contextmanager
def told_warnings(command: str) -> Iterator[None]:
    """Print each PripWarning as one line on standard error, without the line of source that warnings usually show."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", PripWarning)
        show = warnings.showwarning

        def tell(message: Any, category: type[Warning], *source: Any, **options: Any) -> None:
            if issubclass(category, PripWarning):
                print(f"{command}: warning: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                show(message, category, *source, **options)

        warnings.showwarning = tell
        yield
