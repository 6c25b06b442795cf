"""What of Gradio's server is let through: what the page asks for, and nothing with which somebody could fill the disk.

Gradio takes uploads whether or not a page has a field for files, and fetches the address of a file that a field is
given in place of a text.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..network.request_guard import Guard, Message, Receive, Send, refuse

API = "/gradio_api"
PATHS = {
    "GET": {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json"}
    | {f"{API}/{name}" for name in ("queue/data", "startup-events", "app_id")},
    "POST": {f"{API}/{name}" for name in ("queue/join", "run/predict", "cancel", "reset")},
}
BEGINNINGS = ("/assets/", "/static/", f"{API}/heartbeat/")
PICTURE = f"{API}/file="

BODY_BYTES = 4 << 20
"""The largest request: a history of long prompts, which a browser sends when the page is opened."""
BODY_TIMEOUT_S = 60.0

HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Gradio's page has scripts and styles within its HTML, and makes functions of text; no other host is asked."""


class PageGuard(Guard):
    """Wraps Gradio's application, and answers 404 to what the page does not ask for, 422 to files in its fields."""

    def __init__(self, host: str, names: Collection[str], images: Path) -> None:
        """host, names: as for Guard; `names` may grow. images: the folder whose files the page shows, and no others."""
        lower = [name.lower() for name in names]
        super().__init__(None, host, None, BODY_BYTES, BODY_TIMEOUT_S, lower, HEADERS)
        self.images = images

    def wrap(self, application: Any) -> PageGuard:
        """Takes the application that is to be guarded, once Gradio has made it."""

        async def of_the_page(scope: Message, receive: Receive, send: Send) -> None:
            whole = [await receive()]
            if not self.is_of_the_page(scope["method"], scope["path"]):
                await refuse(send, 404, "the page needs no such address, and it is not served")
            elif scope["method"] == "POST" and not is_plain(whole[0].get("body", b"")):
                await refuse(send, 422, "a field of the page is a text, a number, a switch or a list of them")
            else:

                async def replay() -> Message:
                    return whole.pop() if whole else await receive()

                await application(scope, replay, send)

        self.lifespan, self.application = application, of_the_page
        return self

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        await (self.lifespan if scope["type"] == "lifespan" else super().__call__)(scope, receive, send)

    def is_of_the_page(self, method: str, path: str) -> bool:
        """Returns whether the page asks for a path by a method."""
        method = "GET" if method == "HEAD" else method
        if path in PATHS.get(method, ()):
            return True
        if path.startswith(PICTURE):
            return method == "GET" and Path(path.removeprefix(PICTURE)).parent == self.images
        return method == "GET" and path.startswith(BEGINNINGS)


def is_plain(body: bytes) -> bool:
    """Returns whether no field of a request to Gradio is an object: that is how it is given files."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and not _holds_objects(request.get("data"))


def _holds_objects(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            return True
        if isinstance(one, list):
            waiting += one
    return False
