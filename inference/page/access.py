"""Which requests Gradio's server accepts: those of the page, and none that could fill the disk.

Gradio accepts uploads even without a file field, and downloads the URL of a file sent instead of text.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from ..network.request_guard import Application, Guard, Message, Receive, Send, refuse, replayed

API = "/gradio_api"
PATHS = {
    "GET": {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json"}
    | {f"{API}/{name}" for name in ("queue/data", "startup-events", "app_id")},
    "POST": {f"{API}/{name}" for name in ("queue/join", "run/predict", "cancel", "reset")},
}
PREFIXES = ("/assets/", "/static/", f"{API}/heartbeat/")
PICTURE = f"{API}/file="

BODY_BYTES = 4 << 20
"""Largest request body: a history of long prompts, which the browser sends when the page opens."""
BODY_TIMEOUT_S = 60.0

HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; base-uri 'self'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Gradio needs inline scripts and styles, and eval; requests to other hosts are blocked."""


class PageGuard(Guard):
    """ASGI middleware for Gradio: answers 404 to paths that the page does not use, 422 to files sent as field values.

    Args:
        host: Address that the server listens on.
        names: Further host names to answer under; may grow while serving.
        images: Folder of the files that the page shows. No other file is served.
    """

    def __init__(self, host: str, names: Collection[str], images: Path) -> None:
        names = [name.lower() for name in names]
        super().__init__(None, host, None, BODY_BYTES, body_timeout_s=BODY_TIMEOUT_S, names=names, headers=HEADERS)
        self.images = images

    def wrap(self, application: Application) -> PageGuard:
        """Set the application to guard, once Gradio has built it."""

        async def page_only(scope: Message, receive: Receive, send: Send) -> None:
            message = await receive()
            if not self.is_of_the_page(scope["method"], scope["path"]):
                await refuse(send, 404, "this address is not part of the page")
            elif scope["method"] == "POST" and not is_plain(message.get("body", b"")):
                await refuse(send, 422, "data: expected strings, numbers, booleans and lists of these, got an object")
            else:
                await application(scope, replayed(message, receive), send)

        self.lifespan, self.application = application, page_only
        return self

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        await (self.lifespan if scope["type"] == "lifespan" else super().__call__)(scope, receive, send)

    def is_of_the_page(self, method: str, path: str) -> bool:
        """Return whether the page uses this method and path."""
        method = "GET" if method == "HEAD" else method
        if path in PATHS.get(method, ()):
            return True
        if path.startswith(PICTURE):
            return method == "GET" and Path(path.removeprefix(PICTURE)).parent == self.images
        return method == "GET" and path.startswith(PREFIXES)


def is_plain(body: bytes) -> bool:
    """Return whether no field of a request to Gradio is a JSON object, which is how files are sent."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and not _holds_objects(request.get("data"))


def _holds_objects(data: object) -> bool:
    pending = [data]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            return True
        if isinstance(value, list):
            pending += value
    return False
