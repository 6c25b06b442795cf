"""Read the text that people bring: UTF-8 with or without a byte order mark, and lines as every system ends them."""

from __future__ import annotations

import io
import re
from pathlib import Path

from .errors import InputError

_LINE_END = re.compile(r"\r\n|\r|\n")


def decode_text(content: bytes, name: str) -> str:
    """Return UTF-8 as text, without the byte order mark.

    Args:
        content: The whole content of a file.
        name: The file as it is called in messages.

    Raises:
        InputError: A byte is not UTF-8; the message has its line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The object of utf-8-sig's error lacks the mark, so positions refer to it and not to `content`.
        before = error.object[: error.start].decode("utf-8")
        line = len(_LINE_END.findall(before)) + 1
        raise InputError(f"{name}, line {line}: expected UTF-8, got byte {error.object[error.start]:#04x}") from error


def read_text(path: Path, name: str = "") -> str:
    """Return the text of a file in UTF-8, without the byte order mark.

    Args:
        path: The file.
        name: The file as it is called in messages; its path by default.

    Raises:
        InputError: The file cannot be read, or a byte is not UTF-8.
    """
    name = name or str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    return decode_text(content, name)


def lines_of(text: str) -> list[str]:
    r"""Return the lines of a text, each ended by \r\n, \r or \n; the end of the last one may be missing.

    `str.splitlines` also splits at characters that belong to a line, such as U+2028 and U+000B.
    """
    lines = _LINE_END.split(text)
    return lines if lines[-1] else lines[:-1]


def read_lines(path: Path, name: str = "") -> list[str]:
    """Return the lines of a file; arguments and errors as in `read_text`."""
    return lines_of(read_text(path, name))


def stream_of(text: str) -> io.StringIO:
    """Return a text as a stream for the csv module: the same ends of lines, which are kept within quoted fields."""
    return io.StringIO(text, newline="")
