"""The chat client against endpoints that answer with too much, too slowly, or with what a terminal would obey."""

from __future__ import annotations

import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from prip.chat_client import ANSWER_BYTES, ChatClient, ChatError

KEY = 'sk-"very"-secret'


def response(body: bytes, status: str = "200 OK", encoding: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return (head + (f"Content-Encoding: {encoding}\r\n" if encoding else "") + "\r\n").encode() + body


def said(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def packed(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(content) + packer.flush()


@contextmanager
def answering(send: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve each connection by `send` after its request; yields the address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                _read_request(connection)
                send(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        listening.close()


def _read_request(connection: socket.socket) -> None:
    """Read a request with its body: closing a connection with unread bytes would reset it."""
    received = b""
    while b"\r\n\r\n" not in received and (more := connection.recv(65536)):
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length and (more := connection.recv(65536)):
        body += more


def failure(send: Callable[[socket.socket], None], timeout_s: float = 60.0) -> str:
    """Ask once, and return the error."""
    with answering(send) as address, pytest.raises(ChatError) as caught:
        ChatClient(address, KEY, timeout_s=timeout_s, retries=0).answer({"messages": []})
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", ""])
def test_an_answer_that_is_too_long_is_not_read(encoding: str) -> None:
    content = b'{"choices": [' + b" " * 50_000_000
    sent = response(packed(content) if encoding else content, encoding=encoding)
    tracemalloc.start()
    try:
        message = failure(lambda connection: connection.sendall(sent))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "the answer is longer than 1,048,576 bytes" in message and peak < 20_000_000


def test_a_packed_answer_is_read_and_one_of_no_known_kind_refused() -> None:
    sent = response(packed(said("a cat, night")), encoding="gzip")
    with answering(lambda connection: connection.sendall(sent)) as address:
        assert ChatClient(address).answer({}) == "a cat, night"
    sent = response(packed(said("a cat"))[5:], encoding="br")
    assert "cannot decode Content-Encoding: br" in failure(lambda connection: connection.sendall(sent))


def test_an_answer_that_drips_ends_with_the_time() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n")
        for _ in range(600):
            connection.sendall(b" ")
            time.sleep(0.1)

    began = time.monotonic()
    assert "no answer in time" in failure(drip, timeout_s=1.0)
    assert time.monotonic() - began < 30


def test_json_nested_deeply_is_an_error() -> None:
    assert "expected JSON" in failure(lambda connection: connection.sendall(response(b"[" * (ANSWER_BYTES - 1))))


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Oops"])
def test_neither_control_characters_nor_the_key_are_shown(status: str) -> None:
    body = b"\x1b[2J\x1b]0;pwn\x07 wrong key " + json.dumps(KEY).encode() + b" or " + KEY.encode()
    message = failure(lambda connection: connection.sendall(response(body, status)))
    assert message.isprintable() and "very" not in message and message.count("[key]") == 2
