"""Listening sockets: opened or refused before anything heavy is loaded."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Sequence

from prip.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_ADDRESS = ("0.0.0.0", "::")
_SITE = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]+)?")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes any free one. Raises InputError if the port is not available."""
    if not 0 <= port <= 65_535:
        raise InputError(f"port: expected a number from 0 to 65535, got {port}")
    if not host.strip():
        raise InputError(f"host: expected an address of this machine such as 127.0.0.1, got {host!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except UnicodeError as error:
        raise InputError(f"host: expected a host name or an address, got {host!r}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {host} is taken; choose another, or 0 for any free one") from error
        reason = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise InputError(f"cannot listen on port {port} of {host}: {reason or error}") from error


def check_host_names(names: Sequence[str]) -> None:
    """Raise InputError unless each is a host name without a port."""
    for name in names:
        if not name or name != name.strip() or any(character in name for character in ":/@ "):
            raise InputError(f"host_name: expected a name without a port, such as refiner.example, got {name!r}")


def check_origins(origins: Sequence[str]) -> None:
    """Raise InputError unless each is "*" or a site as browsers name it in Origin."""
    for origin in origins:
        if origin != "*" and not _SITE.fullmatch(origin):
            raise InputError(
                f"allow_origin: expected * or a site in lower case without a path, such as https://studio.example or "
                f"http://localhost:3000, got {origin!r}"
            )


def address(host: str, listening: socket.socket) -> str:
    """Return the URL of a listening socket for programs on this machine, such as http://127.0.0.1:8000/."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}/"
