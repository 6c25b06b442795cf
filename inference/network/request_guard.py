"""A guard in front of every server of PRIP: it passes requests for the server's own name, small and in time.

A page of another site can make a browser send requests to 127.0.0.1, and DNS rebinding can disguise them as same-site
requests. So the requested name (Host) and the requesting site (Origin, Sec-Fetch-Site) must both be the server's own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from .listening import ANY_ADDRESS, LOOPBACK

_ONCE = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest")
"""Headers that decide; a request that sends one twice is refused."""
DISCARDED = 32
"""Up to this multiple of the body limit is read and discarded, so that the client still gets the 413."""

PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""For every answer to a page."""
API_HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
"""For every answer to a program."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application; frameworks disagree on the exact types of its scope and channels."""


class Guard:
    """ASGI middleware: answers 403 to foreign requests, 413 to large ones and 408 to slow ones, and adds headers.

    Args:
        application: What the accepted requests go to.
        host: Address that the server listens on; 0.0.0.0 and :: accept any address of the machine.
        port: Port that requests must name; None accepts any, for a server behind a forwarded port.
        body_bytes: Largest body.
        body_timeout_s: Seconds in which the body must arrive; None for no limit.
        names: Further host names to answer under.
        origins: Other sites whose pages may send requests; "*" for all.
        headers: Added to every answer, refusals included.
    """

    def __init__(
        self,
        application: Application | None,
        host: str,
        port: int | None,
        body_bytes: int,
        *,
        body_timeout_s: float | None = None,
        names: Collection[str] = (),
        origins: Collection[str] = (),
        headers: Mapping[str, str] = PAGE_HEADERS,
    ) -> None:
        self.application: Any = application
        self.host = host.lower()
        self.port = port
        self.body_bytes = body_bytes
        self.body_timeout_s = body_timeout_s
        self.names = frozenset(name.lower() for name in names)
        self.origins = frozenset(origins)
        self.headers = headers

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return
        send = with_headers(send, self.headers)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        names = [name for name, _ in scope["headers"]]
        if any(names.count(name) > 1 for name in _ONCE) or not self.is_own(headers, scope["method"]):
            await refuse(send, 403, "this server answers only under its own name, and not to pages of other sites")
            return
        try:
            body = await asyncio.wait_for(self._body(receive), self.body_timeout_s)
        except TimeoutError:
            await refuse(send, 408, f"the request did not arrive within {self.body_timeout_s:g} seconds")
            return
        if body is None:
            return
        if len(body) > self.body_bytes:
            await refuse(send, 413, f"request body: expected at most {self.body_bytes:,} bytes")
            return
        message = {"type": "http.request", "body": bytes(body), "more_body": False}
        await self.application(scope, replayed(message, receive), send)

    async def _body(self, receive: Receive) -> bytearray | None:
        """Return the body, or None if the client disconnected; of a body that is too large, enough to tell so."""
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

    def is_own(self, headers: Mapping[str, str], method: str = "GET") -> bool:
        """Return whether a request names this server and does not come from a page of another site that is not allowed.

        Args:
            headers: The request's headers, with names in lower case.
            method: Its method; links are followed by GET and HEAD alone.
        """
        if not self._is_own_address(f"http://{headers.get('host', '')}"):
            return False
        if not self.origins.isdisjoint((headers.get("origin"), "*")):
            return True
        if "origin" in headers and headers["origin"] not in (f"http://{headers['host']}", f"https://{headers['host']}"):
            return False
        opened_as_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return (opened_as_page and method in ("GET", "HEAD")) or headers.get("sec-fetch-site", "none") in (
            "none",
            "same-origin",
        )

    def _is_own_address(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if self.port not in (None, port) or parts.path or parts.username is not None or {"?", "#"} & set(url):
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


def replayed(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that gives a message again before it goes on."""
    messages = [message]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """Return a `send` that adds headers to the answer."""
    added = as_pairs(headers)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return send_with_headers


def as_pairs(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as pairs of bytes, for ASGI and h11."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def refusal(reason: str) -> tuple[bytes, dict[str, str]]:
    """Return the body {"detail": reason} and the headers of an answer that closes the connection."""
    body = json.dumps({"detail": reason}).encode()
    return body, {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}


async def refuse(send: Send, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
    """Answer {"detail": reason} and close the connection."""
    body, own_headers = refusal(reason)
    all_headers = as_pairs({**own_headers, **(headers or {})})
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})
