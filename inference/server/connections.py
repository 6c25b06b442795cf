"""The connections of the server: those of clients that do not send, do not read, or speak no HTTP, are ended."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..network.request_guard import API_HEADERS, as_pairs, refusal


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a limit on how long a client may take for its headers and for reading an answer.

    The Guard limits the body. The limit is `timeout_keep_alive`, that of idle connections too.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for the first headers."""
        super().connection_made(transport)
        self._reading = self._end_later()

    def data_received(self, data: bytes) -> None:
        """Waits on for headers of which only a part has come."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._reading = self._unset(self._reading)
        elif self._reading is None:
            self._reading = self._end_later()

    def on_response_complete(self) -> None:
        """Waits for the rest of headers that came behind the request that was just answered."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0] and self._reading is None:
            self._reading = self._end_later()

    def pause_writing(self) -> None:
        """The client has stopped to read."""
        super().pause_writing()
        self._writing = self._writing or self._end_later()

    def resume_writing(self) -> None:
        """The client reads on."""
        super().resume_writing()
        self._writing = self._unset(self._writing)

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits for nothing more."""
        self._reading, self._writing = self._unset(self._reading), self._unset(self._writing)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP as all else is refused. msg: uvicorn's words for it, which are not told."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body, headers = refusal("the request cannot be read as HTTP/1.1")
            answer = h11.Response(status_code=400, headers=as_pairs({**headers, **API_HEADERS}), reason=b"Bad Request")
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _end_later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    @staticmethod
    def _unset(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
