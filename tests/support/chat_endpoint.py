"""A small HTTP server that answers as chat endpoints do, and fails as they do."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server does with one request."""

    body: Any = None
    """JSON, or bytes as they are; None answers with the user's message in capitals."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    hang_up: bool = False


class Endpoint:
    """The state of the server: what it will do next, and what it was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = ""


def said(content: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}, **more}]}


@contextlib.contextmanager
def serving() -> Iterator[Endpoint]:
    """Serves on a free port of localhost for as long as the context lasts."""
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.requests.append(asked)
                state.headers.append(dict(self.headers))
                state.paths.append(self.path)
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
                reply = state.replies.pop(0) if state.replies else Reply()
            time.sleep(reply.wait_s)
            with state.lock:
                state.at_once -= 1
            if reply.hang_up:
                return
            body = said(asked["messages"][-1]["content"].upper()) if reply.body is None else reply.body
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            with contextlib.suppress(OSError):  # a client that waits no longer
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
