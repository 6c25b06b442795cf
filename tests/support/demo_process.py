"""`prip demo` as a process of its own, and a client of its page that needs no browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "prip.inference.cli")
QUIET = ("demo", "--no-open", "--port", "0", "--device", "cpu")


class DemoProcess:
    """A page on a free port of 127.0.0.1. `folder`: its temporary files. `said`: what it printed before its address."""

    def __init__(self, options: Sequence[str], folder: Path, command: Sequence[str] = COMMAND) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [*command, *QUIET, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)},
        )
        assert self.process.stdout is not None
        self.said: list[str] = []
        for line in self.process.stdout:
            if found := re.match(r"(http://127\.0\.0\.1:(\d+)/) \(press Ctrl-C to stop\)", line):
                self.address, self.port = found[1], int(found[2])
                return
            self.said.append(line)
        raise AssertionError(self.process.communicate())

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def call(self, name: str, *fields: Any) -> list[Any]:
        """What a handler of the page gives for its fields, the session being None, as a browser asks for it."""
        config = json.loads(self.ask("GET", "/config")[1])
        number = next(one["id"] for one in config["dependencies"] if one["api_name"] == name)
        request = {"fn_index": number, "session_hash": "tests", "data": list(fields)}
        status, body = self.ask("POST", "/gradio_api/queue/join", json.dumps(request).encode(), JSON)
        assert status == 200, body
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/gradio_api/queue/data?session_hash=tests")
            for line in connection.getresponse():
                event = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if event.get("msg") == "process_completed":
                    assert event["success"], event
                    return event["output"]["data"]
        finally:
            connection.close()
        raise AssertionError("the answer ended early")

    def end(self) -> tuple[int, str]:
        """Ends it as a service manager would; exit code and what it printed on stderr."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


JSON = {"Content-Type": "application/json"}


@contextmanager
def demo(folder: Path, *options: str, command: Sequence[str] = COMMAND) -> Iterator[DemoProcess]:
    """A page that is ended, whatever happens."""
    page = DemoProcess(options, folder, command)
    try:
        yield page
    finally:
        page.process.kill()
        page.process.communicate()
