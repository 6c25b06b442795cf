"""The parser of a stage: a flag for every field of its settings, and errors in the words that the user typed."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NoReturn, get_type_hints

import docstring_parser
from jsonargparse import (
    ActionConfigFile,
    ActionYesNo,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_parsing_settings,
)

from prip.command_line import any_of, unknown_flag
from prip.command_line import in_words as argparse_in_words
from prip.errors import InputError

from .config_files import preset_names

_KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'tuple'>": 'a list such as \'["one", "two"]\'',
    "<class 'dict'>": "names with values, such as '{\"name\": 1}'",
}
"""In words, what jsonargparse calls types."""


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows types and defaults, and leaves the examples' lines alone."""


class StageParser(ArgumentParser):
    """Says in one line what is wrong and how to learn more."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the message in the user's words and exits with status 2."""
        options = [text for action in self._actions for text in action.option_strings]
        print(f"{self.prog}: error: {in_words(message, options)} (all settings: {self.prog} --help)", file=sys.stderr)
        self.exit(2)


def in_words(message: str, options: list[str]) -> str:
    """Returns jsonargparse's message as PRIP says it: which argument, what was wanted, what came.

    options: all flags, of which one may have been meant.
    """
    text = " ".join(message.split())
    if found := re.fullmatch(r'Parser key "(.+?)": Expected an? (.+?)\. Got value: (.*)', text):
        return f"{found[1]}: wanted {_kind(found[2])}, got {found[3]!r}"
    if found := re.fullmatch(r"Group '(.+)' does not accept option '(.+)'", text):
        return unknown_flag(f"--{found[1]}.{found[2]}", options)
    if found := re.fullmatch(r"the following arguments are required: (.*)", text):
        return "; ".join(f"{name}: wanted a folder, as in --{name} FOLDER, got none" for name in found[1].split(", "))
    return argparse_in_words(text, options)


def _kind(type_name: str) -> str:
    """In words: a type as jsonargparse shows it."""
    if found := re.fullmatch(r"typing\.Literal\[(.*)\]", type_name):
        return any_of([value.strip("' ") for value in found[1].split(",")])
    return _KINDS.get(type_name, type_name)


def stage_parser(name: str, settings_class: type, examples: str) -> StageParser:
    """Returns the parser of a stage: a flag for every field, and --flag / --no_flag for each bool at the top."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = StageParser(
        prog=f"prip-train {name}",
        description=inspect.cleandoc(settings_class.__doc__ or ""),
        epilog=examples,
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "--config", action=ActionConfigFile, help=" or ".join([*preset_names(name), "the path of a YAML file"])
    )
    parser.add_argument(
        "--extends", help="in a YAML file: the preset or the file (beside it) whose settings it begins with (type: str)"
    )
    switches = {field.name: field for field in fields(settings_class) if field.type in ("bool", bool)}
    parser.add_class_arguments(settings_class, skip=set(switches))
    explanations = _field_docstrings(settings_class)
    for switch, field in switches.items():
        default = False if field.default is MISSING else field.default
        parser.add_argument(
            f"--{switch}", action=ActionYesNo(no_prefix="no_"), default=default, help=explanations[switch]
        )
    return parser


def _field_docstrings(settings_class: type) -> dict[str, str]:
    """Returns the docstrings under the fields of a settings class and of those that it extends."""
    parsed = [docstring_parser.parse_from_object(base) for base in reversed(settings_class.__mro__[:-1])]
    return {param.arg_name: param.description or "" for docstring in parsed for param in docstring.params}


def build_settings(settings_class: type, parsed: Namespace, instantiate: Callable[[Namespace], Namespace]) -> Any:
    """Returns the settings that were parsed. Raises InputError by the dotted name of the field that does not fit."""
    held = parsed.as_dict()
    _check_groups(settings_class, held, "")
    try:
        values = vars(instantiate(parsed))
    except InputError:
        for name, group in _groups(settings_class).items():
            _build(group, held[name], f"{name}.")
        raise
    return settings_class(**{field.name: values[field.name] for field in fields(settings_class)})


def _groups(settings_class: type) -> dict[str, Any]:
    """Returns the fields that hold settings of their own, with their classes."""
    return {name: kind for name, kind in get_type_hints(settings_class).items() if is_dataclass(kind)}


def _check_groups(settings_class: type, held: Mapping[str, Any], before: str) -> None:
    """Raises InputError for a group of settings that is none."""
    for name, group in _groups(settings_class).items():
        if not isinstance(held[name], Mapping):
            raise InputError(f"{before}{name}: wanted settings by name, got {held[name]!r}")
        _check_groups(group, held[name], f"{before}{name}.")


def _build(settings_class: type, held: Mapping[str, Any], before: str) -> Any:
    """Returns a group of settings. Raises InputError with `before` in front of the name that does not fit."""
    groups = _groups(settings_class)
    built = {name: _build(group, held[name], f"{before}{name}.") for name, group in groups.items()}
    try:
        return settings_class(**{**held, **built})
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(before) else f"{before}{text}") from error
