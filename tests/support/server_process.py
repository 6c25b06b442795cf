"""`prip serve` as a process of its own, and clients that do to it what no library would."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

COMMAND = [sys.executable, "-m", "prip.inference.cli", "serve"]


class ServerProcess:
    """A server on a free port of 127.0.0.1, once it has told its address in its first line."""

    def __init__(self, *options: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", "--threads", "1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline()
        if not self.first_line.startswith("http://"):
            self.process.kill()
            raise AssertionError(self.process.communicate())
        self.port = int(self.first_line.split()[0].rstrip("/").rsplit(":", 1)[1])

    def ask(
        self, path: str, body: Any = None, timeout_s: float = 60, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or text) and headers of one request, a POST if there is a body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request("GET" if body is None else "POST", path, content, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
            kind = answer.headers.get_content_type()
            return answer.status, json.loads(text) if kind == "application/json" else text, dict(answer.headers)
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [line for line in self.ask("/metrics")[1].splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def end(self) -> tuple[int, str]:
        """Ends it as a service manager would; exit code and what it printed on stderr."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextmanager
def serving(*options: str, **environment: str) -> Iterator[ServerProcess]:
    """A server that is ended, whatever happens."""
    server = ServerProcess(*options, **environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side ends, empty if it cuts the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)
