"""What the commands `prip` and `prip-train` say of arguments that cannot be used: one line, in the user's words."""

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
"""In words, what argparse calls types."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong and how to learn more: of a subcommand, in that subcommand's name."""

    def error(self, message: str) -> NoReturn:
        """Prints the message in the user's words and exits with status 2."""
        flags = [text for action in self._actions for text in action.option_strings]
        told = in_words(message, flags, example(self.epilog))
        print(f"{self.prog}: error: {told} (all arguments: {self.prog} --help)", file=sys.stderr)
        self.exit(2)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Returns what was parsed. Exits with status 2 for what is unknown."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self._chosen(parsed)._refuse(unknown)
        return parsed

    def _chosen(self, parsed: argparse.Namespace) -> Parser:
        """Returns the parser of the subcommand that was given, or this one."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and action.choices:
                return action.choices.get(getattr(parsed, action.dest), self)
        return self

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        flag = next((word for word in unknown if re.match("--?[a-zA-Z]", word)), None)
        if flag is not None:
            self.error(f"unrecognized arguments: {flag}")
        names = [str(action.metavar or action.dest) for action in self._actions if not action.option_strings]
        told = f"too many arguments: wanted {' and '.join(names) or 'none'}, got {unknown[0]!r} besides"
        self.error(told + ("; what has spaces stands in quotes" if names else ""))


def in_words(message: str, flags: Sequence[str], example: str = "") -> str:
    """Returns argparse's message as PRIP says it: which argument, what was wanted, what came.

    flags: all there are, of which one may have been meant. example: a command, to be shown where something is missing.
    """
    text = " ".join(message.split()).removeprefix("argument ")
    if found := re.fullmatch(r"unrecognized arguments: (.*)", text):
        return unknown_flag(found[1].split()[0], flags)
    if found := re.fullmatch(r"(.+?): invalid choice: (.+?) \(choose from (.*)\)", text):
        choices = [choice.strip("'") for choice in found[3].split(", ")]
        return f"{found[1]}: wanted {any_of(choices)}, got {found[2]}" + meant(found[2].strip("'"), [*choices, *flags])
    if found := re.fullmatch(r"(.+?): invalid (\w+) value: (.*)", text):
        return f"{found[1]}: wanted {KINDS.get(found[2], found[2])}, got {found[3]}"
    if found := re.fullmatch(r"(.+?): expected (?:one|at least one) argument", text):
        return f"{found[1]}: wanted a value, got none"
    if found := re.fullmatch(r"the following arguments are required: (.*)", text):
        names = found[1].split(", ")
        shown = f", as in: {example}" if example else ""
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing{shown}"
    return text


def unknown_flag(flag: str, flags: Sequence[str]) -> str:
    """Returns that there is no such flag, and which of `flags` may have been meant."""
    return f"unknown argument {flag}{meant(flag, flags)}"


def meant(word: str, known: Sequence[str]) -> str:
    """Returns "; did you mean ...?" where one of the known words is like this one, or the only one to begin so."""
    word = word.partition("=")[0]
    near = difflib.get_close_matches(word, known, n=1)
    bare = word.strip("-")
    begin_so = [one for one in known if bare and one.lstrip("-").startswith(bare)]
    found = near or (begin_so if len(begin_so) == 1 else [])
    return f"; did you mean {found[0]}?" if found else ""


def any_of(words: Sequence[str]) -> str:
    """Returns "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def example(epilog: str | None) -> str:
    """Returns the first command among the examples at the end of a help text, "" where there is none."""
    lines = [line.strip() for line in (epilog or "").splitlines() if line.startswith("  ")]
    return lines[0] if lines else ""


@contextmanager
def told_warnings(command: str) -> Iterator[None]:
    """Within, each PripWarning is one line on the error stream, as errors are, and names no line of source."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", PripWarning)
        otherwise = warnings.showwarning

        def tell(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, PripWarning):
                print(f"{command}: warning: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                otherwise(message, category, *place, **options)

        warnings.showwarning = tell
        yield
