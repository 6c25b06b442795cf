"""`prip serve` as a process: equal texts under mixed traffic, hostile clients, full queues, signals, bad arguments."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from server_process import ServerProcess, received, serving

from prip.inference.cli import main
from prip.inference.network.listening import listen
from prip.inference.network.request_guard import API_HEADERS
from prip.refiner import Refiner

POST = b"POST /v1/refine HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
HEADERS = tuple(API_HEADERS.items())
SLOW = {"prompt": [f"a cat and {number} dogs" for number in range(32)], "num_alternatives": 8, "temperature": 1.0}


@pytest.fixture(scope="module")
def strict() -> Iterator[ServerProcess]:
    """A server with a key, a short queue and little patience."""
    options = ["--queue-size", "64", "--timeout", "0.2", "--client-timeout", "1", "--max-body-bytes", "4096"]
    with serving(*options, PRIP_API_KEY="0123456789abcdef") as server:
        yield server


def mixed_requests(count: int) -> list[dict[str, Any]]:
    """Requests whose prompts, seeds and options differ, some of which can share a batch."""
    chooser = random.Random(0)
    nouns = [
        "a cat",
        "two dogs on the beach",
        "Ünïcödé 猫 🐈",
        "a castle in the snow at night, oil painting",
        "a robot.",
    ]
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0},
        {"temperature": 0.6, "banned_terms": ["golden hour", "bokeh"]},
        {"max_new_tokens": 12},
        {"token_budget": 30},
        {"num_alternatives": 3},
        {"styles": ["watercolor"], "strength": 0.5},
    ]
    return [
        {
            "prompt": [f"{chooser.choice(nouns)} {number}" for number in range(chooser.randint(1, 3))],
            "seed": chooser.randint(0, 3),
            **chooser.choice(kinds),
        }
        for _ in range(count)
    ]


def test_texts_equal_those_of_refine_whatever_else_is_in_the_batch(shared_server: ServerProcess) -> None:
    server = shared_server
    requests = mixed_requests(60)
    batches = server.metric("prip_refine_batch_size_count")
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda body: server.ask("/v1/refine", body), requests))
    assert server.metric("prip_refine_batch_size_count") - batches < 45, "they did share batches"
    refiner = Refiner.from_pretrained("prip-mini", device="cpu")
    for body, (status, answer, _) in zip(requests, answers, strict=True):
        assert status == 200
        wanted = refiner.refine(**body)
        texts = [one["refined_prompts"] for one in answer["results"]]
        assert texts == [[text] if isinstance(text, str) else text for text in wanted], body


def test_images_over_http(shared_server: ServerProcess) -> None:
    server = shared_server
    with ThreadPoolExecutor(4) as clients:
        bodies = [{"prompt": "a cat", "seed": seed} for seed in (1, 2, 1, 2)]
        answers = [answer for _, answer, _ in clients.map(lambda body: server.ask("/v1/images", body), bodies)]
    results = [answer["results"][0] for answer in answers]
    one, two, again, too = ([result[kind] for kind in ("plain", "refined")] for result in results)
    for drawn, same in ((one, again), (two, too)):
        for left, right in zip(drawn, same, strict=True):
            assert left["images"] == right["images"]
            assert left["scores"] == {name: pytest.approx(right["scores"][name], rel=1e-4) for name in right["scores"]}
    assert one[0]["images"] != two[0]["images"]
    assert set(one[0]["scores"]) == {"mini-hps", "mini-reward"}


def raw(server: ServerProcess, content: bytes) -> bytes:
    """What comes back of bytes that need be no HTTP."""
    with server.open() as connection:
        connection.sendall(content)
        with contextlib.suppress(OSError):  # the server may have answered and closed by now
            connection.shutdown(socket.SHUT_WR)
        return received(connection)


def test_garbage_is_no_fault_and_harms_nobody(shared_server: ServerProcess) -> None:
    server = shared_server
    good = json.dumps({"prompt": "a cat"}).encode()
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(good) + good
    hostile = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 5000,
        b"A" * 200_000,
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        POST + b"Content-Length: -5\r\n\r\n" + good,
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + good,
        POST + b"Content-Length: 99999999999999\r\n\r\n" + good,
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + good,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        whole[:-5],
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /%ff%00%2e%2e/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ]
    for content in hostile:
        answer = raw(server, content)
        assert b"HTTP/1.1 5" not in answer, content[:100]
        if answer.startswith(b"HTTP/1.1 4"):
            head, _, body = answer.partition(b"\r\n\r\n")
            assert list(json.loads(body)) == ["detail"], content[:100]
            for line in (b"content-type: application/json", *(f"{name}: {value}".encode() for name, value in HEADERS)):
                assert line in head.split(b"\r\n"), content[:100]
    piped = whole * 3 + b"\x00garbage\r\n\r\n"
    with server.open() as connection:
        connection.sendall(piped)
        answer = received(connection)
    assert answer.count(b"HTTP/1.1 200") == 3 and b"HTTP/1.1 400" in answer and b"HTTP/1.1 5" not in answer
    assert server.ask("/v1/refine", {"prompt": "a cat"})[0] == 200


def test_a_client_that_goes_away_leaves_the_queue(shared_server: ServerProcess) -> None:
    server = shared_server
    done = server.metric("prip_prompts_total")
    slow = json.dumps(SLOW).encode()
    connections = [server.open() for _ in range(5)]
    for connection in connections:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(slow) + slow)
    until = time.monotonic() + 30
    while server.metric("prip_queue_depth") < 4 * 32:
        assert time.monotonic() < until
    for connection in connections:
        connection.close()
    while server.metric("prip_queue_depth") > 0:
        assert time.monotonic() < until, "they would take longer than that"
    assert server.ask("/v1/refine", {"prompt": "a cat"})[0] == 200
    assert server.metric("prip_prompts_total") == done + 1
    lines = server.ask("/metrics")[1].splitlines()
    assert 'prip_requests_total{route="/v1/refine",status="499"} 5.0' in lines


def test_a_full_queue_and_a_late_answer_say_so(strict: ServerProcess) -> None:
    key = {"Authorization": "Bearer 0123456789abcdef"}
    assert strict.ask("/v1/refine", SLOW)[0] == 401
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: strict.ask("/v1/refine", SLOW, headers=key), range(6)))
    statuses = [status for status, _, _ in answers]
    assert {503, 504} <= set(statuses) <= {200, 503, 504}, statuses
    for status, answer, headers in answers:
        if status == 503:
            assert int(headers["retry-after"]) >= 1 and "queue is full" in answer["detail"]
        if status == 504:
            assert answer == {"detail": "no answer within 0.2 seconds"}
    until = time.monotonic() + 60
    while strict.ask("/v1/refine", {"prompt": "a cat"}, headers=key)[0] != 200:
        assert time.monotonic() < until
    text = strict.ask("/metrics", headers=key)[1]
    assert f"prip_refused_total {float(statuses.count(503))}" in text


def test_slow_clients_are_sent_away(strict: ServerProcess) -> None:
    """Nothing, half of the headers, headers drop by drop, half of a body: each is ended in a second or two."""
    head = b"POST /v1/refine HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer 0123456789abcdef\r\n"
    drops = [head[i : i + 1] for i in range(40)]
    for sent, answer in (
        ([], b""),
        ([head], b""),
        (drops, b""),
        ([head + b"Content-Length: 50\r\n\r\n{"], b"HTTP/1.1 408"),
    ):
        with strict.open() as connection:
            began = time.monotonic()
            try:
                for part in sent:
                    connection.sendall(part)
                    time.sleep(0.05 if len(sent) > 1 else 0)
            except ConnectionError:
                pass
            came = received(connection)
            assert came.startswith(answer) and (not answer or b"\r\ncache-control: no-store\r\n" in came)
            assert 0.5 < time.monotonic() - began < 6, sent
    with strict.open() as connection:
        request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        connection.sendall(request + request[:20])
        began = time.monotonic()
        assert received(connection).count(b"HTTP/1.1 200") == 1
        assert time.monotonic() - began < 6, "half of a request behind a whole one"
    large = strict.ask("/v1/refine", b"x" * 100_000, headers={"Authorization": "Bearer 0123456789abcdef"})
    assert large[:2] == (413, {"detail": "request body: expected at most 4,096 bytes"})


def test_sigterm_answers_all_that_was_accepted_and_the_logs_are_quiet() -> None:
    with serving("--max-batch", "8", "--host", "localhost") as server:
        assert server.first_line.startswith(f"http://localhost:{server.port}/ (")
        assert raw(server, b"no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400")
        body = {"prompt": SLOW["prompt"][:8]}
        answers: list[tuple[int, Any]] = []
        broken: list[str] = []
        stop = threading.Event()

        def wait() -> None:
            status, answer, _ = server.ask("/v1/refine", body)
            answers.append((status, answer))

        def go_on() -> None:
            """Sends one request after the other: once the server has ended, none may be answered by half."""
            content = b'{"prompt": "a cat"}'
            request = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(content) + content
            while not stop.is_set():
                try:
                    with server.open() as connection:
                        connection.sendall(request)
                        answer = received(connection)
                except OSError:
                    return
                if answer and not (answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'"warnings":[]}')):
                    broken.append(repr(answer))

        waiting = [threading.Thread(target=wait) for _ in range(24)]
        going = [threading.Thread(target=go_on) for _ in range(4)]
        for thread in waiting + going:
            thread.start()
        until = time.monotonic() + 30
        while server.metric("prip_queue_depth") < 64:
            assert time.monotonic() < until and len(answers) < 12
        in_progress = server.metric("prip_requests_in_progress")
        while in_progress < 24 - len(answers):
            in_progress = server.metric("prip_requests_in_progress")
        code, errors = server.end()
        stop.set()
        for thread in waiting + going:
            thread.join(30)
    told = [line for line in errors.splitlines() if "prip" in line or "HTTP" in line or "Traceback" in line]
    assert (code, told) == (0, ["loading prip-mini ..."])
    assert not broken
    assert [status for status, _ in answers] == [200] * 24
    assert all(answer == answers[0][1] and len(answer["results"]) == 8 for _, answer in answers)


def test_a_second_signal_ends_it_at_once() -> None:
    with serving() as server:

        def wait() -> None:
            with contextlib.suppress(OSError, HTTPException):
                server.ask("/v1/refine", SLOW)

        client = threading.Thread(target=wait)
        client.start()
        while server.metric("prip_refine_batch_size_count") < 1:
            pass
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert server.process.poll() is None, "the first one waits for the answer"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == -signal.SIGTERM
        client.join(10)


def test_bad_arguments_are_one_line_before_torch_is_loaded(tmp_path: Path) -> None:
    taken = listen("127.0.0.1", 0)
    (tmp_path / "key").write_text("short")
    bad = {
        f"port {taken.getsockname()[1]} of 127.0.0.1 is taken": ["--port", str(taken.getsockname()[1])],
        "port: expected a number from 0 to 65535, got 70000": ["--port", "70000"],
        "cannot listen on port 0 of no.such.host.invalid": ["--host", "no.such.host.invalid", "--port", "0"],
        "host: expected an address of this machine": ["--host", " "],
        "host_name: expected a name without a port": ["--host-name", "a:80"],
        "api_key_file": ["--api-key-file", str(tmp_path / "key")],
        "max_batch: expected a whole number of at least 1, got 0": ["--max-batch", "0"],
        "max_draw_batch: expected a whole number of at least 1, got 0": ["--max-draw-batch", "0"],
        "max_wait_ms: expected a number from 0 to 8.64e+07, got -1.0": ["--max-wait-ms", "-1"],
        "max_wait_ms: expected less than 2000 (timeout_s), got 2000.0": ["--max-wait-ms", "2000", "--timeout", "2"],
        "queue_size: expected a whole number of at least 32, got 3": ["--queue-size", "3"],
        "timeout_s: expected a number": ["--timeout", "nan"],
        "threads: expected a whole number of at least 1, got 0": ["--threads", "0"],
        "unknown checkpoint 'nowhere'": ["--model", "nowhere"],
    }
    code = (
        "import sys; from prip.inference.cli import main; "
        f"print([main(['serve', *one]) for one in {[*bad.values()]}]); "
        "print(sorted({'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    taken.close()
    assert result.stdout.splitlines() == [str([2] * len(bad)), "[]"]
    for message, line in zip(bad, result.stderr.splitlines(), strict=True):
        assert line.startswith(f"prip serve: error: {message}"), line


def test_a_server_refines_in_the_precision_that_was_asked_for(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, texts = [f"a cat and {number} dogs" for number in range(8)], []

    def serve(application: Any, *_: Any) -> None:
        client = TestClient(application, base_url="http://127.0.0.1")
        texts.append([client.post("/v1/refine", json={"prompt": one}).json()["results"][0] for one in prompts])

    monkeypatch.setattr("prip.inference.server.serving.serve", serve)
    for flags in ([], ["--quantization", "int8"]):
        assert main(["serve", "--model", str(tiny_checkpoint), "--device", "cpu", "--port", "0", *flags]) == 0
    for quantization, found in zip((None, "int8"), texts, strict=True):
        refiner = Refiner.from_pretrained(tiny_checkpoint, device="cpu", quantization=quantization)
        assert [one["refined_prompts"] for one in found] == [[refiner.refine(one)] for one in prompts]
    assert texts[0] != texts[1]
    monkeypatch.setitem(sys.modules, "torchao", None)
    assert main(["serve", "--quantization", "int8"]) == 2


def test_a_checkpoint_without_a_generator_draws_nothing(tiny_checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", "--model", str(tiny_checkpoint), "--images", "--port", "0", "--device", "cpu"]) == 2
    assert "generator is missing" in capsys.readouterr().err
