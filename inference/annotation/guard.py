"""What is let through to the page's server: requests that its own page made, of a small size.

A page of another site can make a browser send requests to 127.0.0.1, and a name that its owner points there (DNS
rebinding) makes such a request look like one of the same site. So the name that was asked for (Host) and the site that
asks (Origin, Sec-Fetch-Site) must be the server's own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

BODY_BYTES = 4096
"""The largest request; an answer has some 200 bytes."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """Wraps an ASGI application: answers 403 to foreign requests and 413 to large ones, and adds safe headers."""

    def __init__(self, application: Any, host: str, port: int) -> None:
        """host, port: where the server listens; 0.0.0.0 and :: mean any address of the machine."""
        self.application = application
        self.host = host
        self.port = port

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if not self.is_own(headers):
            await _refuse(send, 403, "this server answers only its own page, under its own address")
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > BODY_BYTES:
                await _refuse(send, 413, f"a request may have {BODY_BYTES} bytes")
                return
            if not message.get("more_body"):
                break
        whole = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                safe = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *safe]
            await send(message)

        await self.application(scope, replay, send_guarded)

    def is_own(self, headers: MutableMapping[str, str]) -> bool:
        """Returns whether a request with these headers, names in lower case, came from the server's own page."""
        if not self._is_own_place(f"http://{headers.get('host', '')}"):
            return False
        if "origin" in headers and headers["origin"] != f"http://{headers['host']}":
            return False
        opened_as_page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return opened_as_page or headers.get("sec-fetch-site", "none") in ("none", "same-origin")

    def _is_own_place(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        if port != self.port or parts.path or parts.username is not None:
            return False
        if host == self.host or (host in LOOPBACK and self.host in (*LOOPBACK, "0.0.0.0", "::")):
            return True
        return self.host in ("0.0.0.0", "::") and _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
