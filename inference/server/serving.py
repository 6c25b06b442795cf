"""Serving until a signal, then answering what was accepted."""

from __future__ import annotations

import contextlib
import math
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn

from .connections import PatientProtocol
from .settings import ServerSettings

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Ends at the first signal when all that was accepted is answered, at the second one at once."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own would end the process by the signal itself, and not by exit code 0."""

        def end(number: int, frame: FrameType | None) -> None:
            self.should_exit = True
            for one in SIGNALS:
                signal.signal(one, signal.SIG_DFL)

        before = {number: signal.signal(number, end) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(application: Any, listening: socket.socket, settings: ServerSettings, verbose: bool) -> None:
    """Serve an ASGI application until SIGINT or SIGTERM. verbose: each request is logged."""
    longest = settings.timeout_s + 2 * settings.client_timeout_s
    config = uvicorn.Config(
        application,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_level="info" if verbose else "error",
        access_log=verbose,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.client_timeout_s),
        timeout_graceful_shutdown=math.ceil(longest),
    )
    Server(config).run(sockets=[listening])
