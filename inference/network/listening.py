"""Where a server of ours listens: the socket, had or refused before anything heavy is loaded, and its address."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from prip.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY_ADDRESS = ("0.0.0.0", "::")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; port 0 takes any free one. Raises InputError when the port cannot be had."""
    if not 0 <= port <= 65_535:
        raise InputError(f"port must be from 0 to 65535, it is {port}")
    if not host.strip():
        raise InputError("host must be an address of this machine, as in 127.0.0.1; it is blank")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except UnicodeError as error:
        raise InputError(f"host {host!r} is no name") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {host} is taken; choose another, or 0 for any") from error
        reason = error.strerror if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)
        raise InputError(f"cannot listen on port {port} of {host}: {reason or error}") from error


def check_host_names(names: Sequence[str]) -> None:
    """Raises InputError unless each is a name under which a server may be asked for, without a port."""
    for name in names:
        if not name or name != name.strip() or any(character in name for character in ":/@ "):
            raise InputError(f"host_name must be a name without a port, as in refiner.example; {name!r} came")


def address(host: str, listening: socket.socket) -> str:
    """Returns the address under which a program of this machine reaches a listening socket: http://127.0.0.1:8000/."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}/"
