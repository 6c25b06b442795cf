"""The optional API key: read from a file or the environment, checked in constant time before the body is read."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from pathlib import Path

from prip.errors import InputError
from prip.text_files import read_lines

from ..network.request_guard import API_HEADERS, Application, Message, Receive, Send, refuse

VARIABLE = "PRIP_API_KEY"
LEAST_CHARACTERS = 16


def read_key(path: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the key from the first line of a file, else from PRIP_API_KEY, else None.

    Raises:
        InputError: The file cannot be read, or the key is too short or not fit for a header.
    """
    if path is not None:
        source = f"api_key_file {str(path)!r}"
        key = next(iter(read_lines(path, source)), "").strip()
    elif VARIABLE in environment:
        key, source = environment[VARIABLE], VARIABLE
    else:
        return None
    if len(key) < LEAST_CHARACTERS or not all("!" <= character <= "~" for character in key):
        raise InputError(
            f"{source}: expected a key of at least {LEAST_CHARACTERS} visible ASCII characters without spaces in the "
            f"first line, got {len(key)} characters"
        )
    return key


class KeyCheck:
    """ASGI middleware that answers 401 to requests without the key, except for `open_paths`."""

    def __init__(self, application: Application, key: str, open_paths: Collection[str]) -> None:
        self.application = application
        self.key = key.encode()
        self.open_paths = frozenset(open_paths)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in self.open_paths or self._has_key(scope["headers"]):
            await self.application(scope, receive, send)
            return
        challenge = {"www-authenticate": 'Bearer realm="prip"', **API_HEADERS}
        await refuse(send, 401, "this server requires its API key, sent as Authorization: Bearer KEY", challenge)

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        values = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self.key)
