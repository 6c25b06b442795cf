"""Parse YAML and flags into settings dataclasses with jsonargparse; errors are one line that names the setting."""

from __future__ import annotations

import argparse
import inspect
import sys
import types
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import (
    ActionConfigFile,
    ActionYesNo,
    ArgumentParser,
    DefaultHelpFormatter,
    Namespace,
    set_parsing_settings,
)

from .command_line import unknown_flag
from .config_files import EXTENDS
from .errors import InputError, any_of, meant

Settings = TypeVar("Settings")
_TYPE_WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    tuple: 'a list such as \'["one", "two"]\'',
    dict: "a mapping such as '{\"name\": 1}'",
    Mapping: "a mapping",
    Sequence: "a list",
}


class _Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show types in words, and keep the line breaks of the examples."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        if action.choices is not None or isinstance(action, ActionYesNo):
            return None
        kind = getattr(action, "_typehint", None)
        if kind is None or get_origin(kind) is Literal:
            return None
        return _type_words(kind).partition(" such as")[0].removeprefix("a ").removeprefix("an ")


class ValuesParser(ArgumentParser):
    """Checks values against the annotations of functions and dataclasses; errors name the value."""

    def values_of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Convert values to their types and add the defaults; mappings are returned as they are.

        Raises:
            InputError: A name is unknown, a required value is missing, or a value has the wrong type.
        """
        actions = {action.dest: action for action in self._actions if action.dest != "help"}
        for name in map(str, given):
            if name not in actions:
                expected = any_of(list(actions)) if actions else "none"
                raise InputError(f"unknown option {name!r}; expected {expected}{meant(name, list(actions))}")
        for name, action in actions.items():
            if action.required and name not in given:
                raise InputError(f"{name}: expected {_type_words(getattr(action, '_typehint', str))}, got none")
        for name, value in given.items():
            kind = getattr(actions[name], "_typehint", None)
            if value is None and type(None) not in get_args(kind):  # the parser would take null for the default
                raise _wrong_value(actions[name], name, value)
        self._given = given
        # The values of a mapping have no declared type, and the parser would read "1" as a number.
        mappings = {name: value for name, value in given.items() if isinstance(value, Mapping)}
        return {**self.parse_object(deepcopy(dict(given))).as_dict(), **mappings}

    def _check_value_key(self, action: argparse.Action, value: Any, key: str, *args: Any, **options: Any) -> Any:
        try:
            return super()._check_value_key(action, value, key, *args, **options)
        except TypeError as error:
            raise _wrong_value(action, key, getattr(self, "_given", {}).get(key, value)) from error


class _HelpAll(argparse.Action):
    """Print the help of all settings, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        assert isinstance(parser, SettingsParser)
        print(parser.format_help_all(), end="")
        parser.exit()


class SettingsParser(ValuesParser):
    """A parser with a flag for every field of a settings class; errors exit with status 2 after one line."""

    def __init__(
        self, settings_class: type, *, prog: str, epilog: str = "", config_help: str = "", first: Sequence[str] = ()
    ) -> None:
        """Add the flags.

        Args:
            settings_class: A dataclass with a docstring under each field; its bools become --flag / --no_flag, which
                also take true or false as a value.
            prog: The command.
            epilog: Examples, which follow the options in the help.
            config_help: Help text of --config.
            first: Dotted names of the settings that --help shows, and --help-all with the others; none for all.
        """
        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        defaults = {field.name: (field.default, field.default_factory) for field in fields(settings_class)}
        required = [name for name, default in defaults.items() if default == (MISSING, MISSING)]
        usage = " ".join([prog, "[--config CONFIG]", *(f"--{name} {name.upper()}" for name in required), "[options]"])
        super().__init__(
            prog=prog,
            usage=usage,
            description=inspect.cleandoc(settings_class.__doc__ or ""),
            epilog=epilog,
            formatter_class=_Formatter,
        )
        self._required_names, self._first = required, first
        off = argparse.SUPPRESS
        self.add_argument("--help-all", action=_HelpAll, nargs=0, dest=off, default=off, help="Show all settings.")
        self.add_argument("--config", action=ActionConfigFile, help=config_help)
        self._actions[-1].help = "Print all settings as YAML, with the other arguments applied, and exit."
        self.add_argument(f"--{EXTENDS}", default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # for files alone
        switches = {field.name: field for field in fields(settings_class) if field.type in ("bool", bool)}
        self.add_class_arguments(settings_class, as_group=False, skip=set(switches))
        docstrings = _field_docstrings(settings_class)
        for name, field in switches.items():
            default = False if field.default is MISSING else field.default
            switch = ActionYesNo(no_prefix="no_")  # takes a value as well, since settings.yaml says `progress: true`
            self.add_argument(f"--{name}", action=switch, nargs="?", default=default, help=docstrings[name])
            self._actions[-1].metavar = "true|false"

    def format_help(self, *arguments: Any, **options: Any) -> str:
        """Return the help of the settings that matter first."""
        shown = {"help", argparse.SUPPRESS, "config", "print_config", *self._first}
        hidden = {action: action.help for action in self._actions if self._first and action.dest not in shown}
        epilog, names = self.epilog, [action.dest for action in hidden if action.help != argparse.SUPPRESS]
        count = sum(not any(other.startswith(f"{name}.") for other in names) for name in names)  # not groups
        try:
            for action in hidden:
                action.help = argparse.SUPPRESS
            if count:
                self.epilog = f"{count} more settings: {self.prog} --help-all\n\n{epilog or ''}"
            return super().format_help(*arguments, **options)
        finally:
            self.epilog = epilog
            for action, text in hidden.items():
                action.help = text

    def format_help_all(self) -> str:
        """Return the help of all settings."""
        return super().format_help()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and exit with status 2."""
        text = " ".join(message.split())
        print(f"{self.prog}: error: {text} (all settings: {self.prog} --help-all)", file=sys.stderr)
        self.exit(2)

    def parse_args(self, *args: Any, **options: Any) -> Namespace:  # type: ignore[override]
        """Return the parsed settings, not yet built; exit with status 2 on an error."""
        try:
            return super().parse_args(*args, **options)
        except InputError as error:
            self.error(str(error), error)

    # The hooks below know which argument is wrong, so that no message of the library has to be parsed.

    def _parse_known_args(self, *args: Any, **options: Any) -> Any:
        try:
            namespace, unknown = super()._parse_known_args(*args, **options)
        except argparse.ArgumentError as error:
            raise InputError(f"{error.argument_name}: {error.message}") from error
        except TypeError as error:
            raise _wrong_value(self._current, self._current.dest, self._current_value) from error
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            raise InputError(unknown_flag(unknown[0].partition("=")[0], flags))
        return namespace, unknown

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError as error:
            raise InputError(f"{'/'.join(action.option_strings)}: expected a value, got none") from error

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        try:
            self._current, self._current_value = action, super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            if not isinstance(action, ActionYesNo):
                raise
            raise InputError(f"{action.dest}: expected true or false, got {arg_strings[0]!r}") from error
        return self._current_value

    def validate(self, namespace: Namespace, *args: Any, **options: Any) -> None:
        """Raise InputError for a missing or wrong value."""
        printing = hasattr(self, "print_config")  # --print_config shows settings that are not complete
        for name in self._required_names:
            if namespace.get(name) is None and not printing:
                raise InputError(f"{name}: expected a folder, as in --{name} FOLDER, got none")
        super().validate(namespace, *args, **options)


def build_settings(parser: SettingsParser, settings_class: type[Settings], parsed: Namespace) -> Settings:
    """Return the settings that were parsed. Raise InputError that names the dotted field of a wrong value."""
    values = parsed.as_dict()
    try:
        built = vars(parser.instantiate(parsed))
    except InputError:
        for name, group in _groups(settings_class).items():
            _build(group, values[name], f"{name}.")
        raise
    return settings_class(**{field.name: built[field.name] for field in fields(settings_class)})  # type: ignore[arg-type]


def check_names(settings_class: type, values: Mapping[str, Any], prefix: str = "") -> None:
    """Raise InputError for a name that is not a field of `settings_class`, or a group that is not a mapping.

    `prefix` is the dotted name of the group `values`, with a trailing dot.
    """
    known = [field.name for field in fields(settings_class)]
    unknown = next((str(name) for name in values if name not in known), None)
    if unknown is not None:
        hint = meant(f"{prefix}{unknown}", [f"{prefix}{name}" for name in known])
        raise InputError(f"unknown setting {prefix}{unknown}{hint}")
    for name, group in _groups(settings_class).items():
        if name in values:
            if not isinstance(values[name], Mapping):
                raise InputError(f"{prefix}{name}: expected a mapping of settings, got {values[name]!r}")
            check_names(group, values[name], f"{prefix}{name}.")


def _wrong_value(action: argparse.Action, key: str, value: object) -> InputError:
    kind = getattr(action, "_typehint", None)
    expected = "a mapping of settings or the path of a YAML file" if kind is None else _type_words(kind)
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    return InputError(f"{key}: expected {expected}, got {value!r}{meant(str(value), choices)}")


def _type_words(kind: Any) -> str:
    """Return a type in words: "an integer", "preferred or random"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any_of([str(value) for value in arguments])
    if origin in (Union, types.UnionType):
        return any_of(["null" if kind is type(None) else _type_words(kind) for kind in arguments])
    if origin is tuple and get_origin(arguments[0]) is Literal:
        names = get_args(arguments[0])
        return f"a list of {any_of(names)} such as '[\"{names[0]}\"]'"
    return _TYPE_WORDS.get(origin or kind, getattr(kind, "__name__", str(kind)))


def _field_docstrings(settings_class: type) -> dict[str, str]:
    parsed = [docstring_parser.parse_from_object(base) for base in reversed(settings_class.__mro__[:-1])]
    return {param.arg_name: param.description or "" for docstring in parsed for param in docstring.params}


def _groups(settings_class: type) -> dict[str, Any]:
    """Return the classes of the fields that hold settings of their own."""
    return {name: kind for name, kind in get_type_hints(settings_class).items() if is_dataclass(kind)}


def _build(settings_class: type, values: Mapping[str, Any], prefix: str) -> object:
    """Return a group of settings. Raise InputError with `prefix` before the name of the wrong field."""
    built = {name: _build(group, values[name], f"{prefix}{name}.") for name, group in _groups(settings_class).items()}
    try:
        return settings_class(**{**values, **built})
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(prefix) else f"{prefix}{text}") from error
