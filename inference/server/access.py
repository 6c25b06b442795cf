"""The optional API key: read from a file or the environment, compared in constant time, asked for before the body."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from prip.errors import InputError

from ..network.request_guard import API_HEADERS, Message, Receive, Send, refuse

VARIABLE = "PRIP_API_KEY"
LEAST_CHARACTERS = 16


def read_key(path: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the key in the first line of a file, else that of the environment, None where there is neither.

    Raises InputError for a file that cannot be read, and for a key that is short or could not stand in a header.
    """
    if path is not None:
        try:
            key = path.read_text(encoding="utf-8").split("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InputError(f"api_key_file {str(path)!r} cannot be read: {reason}") from error
        place = f"api_key_file {str(path)!r}"
    elif VARIABLE in environment:
        key, place = environment[VARIABLE], VARIABLE
    else:
        return None
    if len(key) < LEAST_CHARACTERS or not all("!" <= character <= "~" for character in key):
        raise InputError(
            f"{place} must hold a key of at least {LEAST_CHARACTERS} visible ASCII characters, without blanks, "
            f"in its first line; it has {len(key)}"
        )
    return key


class KeyCheck:
    """Wraps an ASGI application: answers 401 to requests without the key, but for `open_paths`."""

    def __init__(self, application: Any, key: str, open_paths: Collection[str]) -> None:
        self.application = application
        self.key = key.encode()
        self.open_paths = frozenset(open_paths)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in self.open_paths or self._has_key(scope["headers"]):
            await self.application(scope, receive, send)
            return
        wanted = {"www-authenticate": 'Bearer realm="prip"', **API_HEADERS}
        await refuse(send, 401, "this server wants its key, as Authorization: Bearer KEY", wanted)

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self.key)
