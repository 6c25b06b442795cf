"""Runs uvicorn with time limits for slow clients and a shutdown that answers all accepted requests."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..network.request_guard import API_HEADERS, Application, as_pairs, refusal
from .settings import ServerSettings

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a time limit for a client's headers and for its reading of an answer.

    The limit is `timeout_keep_alive`, as for idle connections. The Guard limits the body.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first headers."""
        super().connection_made(transport)
        self._reading = self._abort_later()

    def data_received(self, data: bytes) -> None:
        """Keep the timer running while the headers are incomplete."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._reading = self._cancelled(self._reading)
        elif self._reading is None:
            self._reading = self._abort_later()

    def on_response_complete(self) -> None:
        """Start the timer if part of the next request's headers has already arrived."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0] and self._reading is None:
            self._reading = self._abort_later()

    def pause_writing(self) -> None:
        """Start the timer: the client has stopped reading."""
        super().pause_writing()
        self._writing = self._writing or self._abort_later()

    def resume_writing(self) -> None:
        """Stop the timer: the client reads again."""
        super().resume_writing()
        self._writing = self._cancelled(self._writing)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        self._reading, self._writing = self._cancelled(self._reading), self._cancelled(self._writing)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer 400 with a JSON body like every other error; uvicorn's own message is not sent."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body, headers = refusal("the request cannot be read as HTTP/1.1")
            answer = h11.Response(status_code=400, headers=as_pairs({**headers, **API_HEADERS}), reason=b"Bad Request")
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _abort_later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    @staticmethod
    def _cancelled(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class Server(uvicorn.Server):
    """Stops at the first signal once every accepted request is answered, at the second one immediately."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals here: uvicorn's own handler would re-raise the signal, so the exit code would not be 0."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.should_exit = True
            for handled in SIGNALS:
                signal.signal(handled, signal.SIG_DFL)

        previous = {number: signal.signal(number, stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def serve(application: Application, listening: socket.socket, settings: ServerSettings, verbose: bool) -> None:
    """Serve an ASGI application until SIGINT or SIGTERM. `verbose` logs each request."""
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
