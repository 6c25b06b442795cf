"""What is let through to a server of ours: requests made to it under its own name, of a small size, in good time.

A page of another site can make a browser send requests to 127.0.0.1, and a name that its owner points there (DNS
rebinding) makes such a request look like one of the same site. So the name that was asked for (Host) and the site that
asks (Origin, Sec-Fetch-Site) must be the server's own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from .listening import ANY_ADDRESS, LOOPBACK

DISCARDED = 32
"""How many times the largest body is read and thrown away, so that the client hears that its own was too large."""

PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Of every answer to a page of ours."""
API_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
"""Of every answer to a program."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """Wraps an ASGI application: answers 403 to foreign requests, 413 to large ones, 408 to slow ones, adds headers."""

    def __init__(
        self,
        application: Any,
        host: str,
        port: int | None,
        body_bytes: int,
        body_timeout_s: float | None = None,
        names: Collection[str] = (),
        headers: Mapping[str, str] = PAGE_HEADERS,
    ) -> None:
        """host, port: where the server listens; 0.0.0.0 and :: mean any address of the machine, port None any port (it
        may be reached through another one). body_bytes: the largest body. body_timeout_s: in which a body must have
        come, None for any time. names: under which it answers too. headers: added to every answer, refusals too.
        """
        self.application = application
        self.host = host.lower()
        self.port = port
        self.body_bytes = body_bytes
        self.body_timeout_s = body_timeout_s
        self.names = frozenset(name.lower() for name in names)
        self.headers = headers

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http":
            return
        send = with_headers(send, self.headers)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self.is_own(headers):
            await refuse(send, 403, "this server answers under its own name alone, and no page of another site")
            return
        try:
            body = await asyncio.wait_for(self._body(receive), self.body_timeout_s)
        except asyncio.TimeoutError:
            await refuse(send, 408, f"the request did not come within {self.body_timeout_s:g} seconds")
            return
        if body is None:
            return
        if len(body) > self.body_bytes:
            await refuse(send, 413, f"a request may have {self.body_bytes:,} bytes")
            return
        whole = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.application(scope, replay, send)

    async def _body(self, receive: Receive) -> bytearray | None:
        """Returns the body, None of a client that went away; of a body that is too large a part that is too large."""
        body, discarded = bytearray(), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            if len(body) <= self.body_bytes:
                body += message.get("body", b"")
            else:
                discarded += len(message.get("body", b""))
            if not message.get("more_body") or discarded > DISCARDED * self.body_bytes:
                return body

    def is_own(self, headers: Mapping[str, str]) -> bool:
        """Returns whether a request with these headers, names in lower case, was made to this server by no other site's
        page."""
        if not self._is_own_place(f"http://{headers.get('host', '')}"):
            return False
        if "origin" in headers and headers["origin"] not in (f"http://{headers['host']}", f"https://{headers['host']}"):
            return False
        opened_as_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return opened_as_page or headers.get("sec-fetch-site", "none") in ("none", "same-origin")

    def _is_own_place(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if self.port not in (None, port) or parts.path or parts.username is not None:
            return False
        if host == self.host or host in self.names:
            return True
        if host in LOOPBACK and self.host in (*LOOPBACK, *ANY_ADDRESS):
            return True
        return self.host in ANY_ADDRESS and _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Returns a `send` that adds headers to the answer."""
    added = as_pairs(headers)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return send_with_headers


def as_pairs(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Returns headers as ASGI and h11 want them."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def refusal(reason: str) -> tuple[bytes, dict[str, str]]:
    """Returns the body {"detail": reason} and the headers of an answer that ends the connection."""
    body = json.dumps({"detail": reason}).encode()
    return body, {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}


async def refuse(send: Send, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
    """Sends an answer of {"detail": reason}, and ends the connection."""
    body, known = refusal(reason)
    await send({"type": "http.response.start", "status": status, "headers": as_pairs({**known, **(headers or {})})})
    await send({"type": "http.response.body", "body": body})
