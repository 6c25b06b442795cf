"""A server that gives a folder as a dataset on the Hub: its revision, its trees, and its files by HEAD and GET."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "beef"


@contextmanager
def serve(folder: Path, repository: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the server's address and the paths of the files that it has given, in their order."""
    given: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            api, resolve = f"/api/datasets/{repository}", f"/datasets/{repository}/resolve/{COMMIT}/"
            if path in (api, f"{api}/revision/main"):
                self._send(json.dumps({"id": repository, "sha": COMMIT}).encode(), body)
            elif path.startswith(f"{api}/tree/{COMMIT}/"):
                root = folder / path.removeprefix(f"{api}/tree/{COMMIT}/")
                files = [self._entry(file) for file in sorted(root.iterdir())]
                self._send(json.dumps(files).encode(), body)
            elif path.startswith(resolve) and (folder / path.removeprefix(resolve)).is_file():
                if body:
                    given.append(path.removeprefix(resolve))
                self._send((folder / path.removeprefix(resolve)).read_bytes(), body)
            else:
                self._send(b"", body, 404)

        def _entry(self, file: Path) -> dict[str, object]:
            kind = "directory" if file.is_dir() else "file"
            name = file.relative_to(folder).as_posix()
            return {"type": kind, "path": name, "size": file.stat().st_size, "oid": "0" * 40}

        def _send(self, content: bytes, body: bool, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", given
    finally:
        server.shutdown()
        server.server_close()
