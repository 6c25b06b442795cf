"""What the server of `prip demo` lets through, and what it leaves behind: real processes, without a browser."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_process import JSON, DemoProcess, demo

from prip.inference.cli import main
from prip.inference.page.access import BODY_BYTES, PageGuard, is_plain

SHARED = """
import sys, gradio.networking
gradio.networking.setup_tunnel = lambda **_: "https://made-up.gradio.live"
from prip.inference.cli import main
sys.exit(main())
"""
"""The command, with Gradio's tunnel left out: what comes through it has the name of its other end."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoProcess]:
    """A page with a public address, behind a proxy too."""
    folder = tmp_path_factory.mktemp("shared")
    with demo(folder, "--share", "--host-name", "page.example", command=(sys.executable, "-c", SHARED)) as page:
        yield page


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:7860"}, 200),
        ({"Host": "made-up.gradio.live", "Origin": "https://made-up.gradio.live"}, 200),
        ({"Host": "page.example", "Origin": "https://page.example"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "other.gradio.live"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
    ],
)
def test_the_page_answers_under_its_own_names_to_no_foreign_page(
    shared: DemoProcess, headers: dict[str, str], status: int
) -> None:
    assert shared.ask("GET", "/", headers=headers)[0] == status


def test_nothing_can_be_uploaded(shared: DemoProcess) -> None:
    before = sorted(shared.folder.rglob("*"))
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + bytes(1 << 20) + b"\r\n--x--"
    status, _ = shared.ask("POST", "/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})
    assert status == 404
    file = {"path": "http://site.example/large", "meta": {"_type": "gradio.FileData"}}
    for data in ([file], [[["a", file]]]):
        request = {"fn_index": 0, "session_hash": "x", "data": data}
        assert shared.ask("POST", "/gradio_api/queue/join", json.dumps(request).encode(), JSON)[0] == 422
    assert shared.ask("POST", "/gradio_api/queue/join", b" " * (BODY_BYTES + 1), JSON)[0] == 413
    assert sorted(shared.folder.rglob("*")) == before


def test_the_page_forbids_its_browser_other_hosts(shared: DemoProcess) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", shared.port)
    connection.request("GET", "/")
    headers = dict(connection.getresponse().headers)
    connection.close()
    policy = dict(one.strip().split(" ", 1) for one in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    assert not {"http:", "https:", "*"} & set(" ".join(policy.values()).split())


def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as page:
        assert page.ask("GET", "/", headers={"Host": "made-up.gradio.live"})[0] == 403, "there is no --share"
        fields = ["a cat", True, 1, [], 1, "", False, 0, 0, 1]
        assert page.call("refine", None, *fields)[5].startswith("a cat, ")
        pictures, _ = page.call("draw", None, *fields)
        ((folder, *_),) = [list(tmp_path.glob("prip-demo-*"))]
        name = next(folder.glob("*.png"))
        assert name.name in pictures
        assert page.ask("GET", f"/gradio_api/file={name}") == (200, name.read_bytes())
        assert page.ask("GET", f"/gradio_api/file={folder}/../{folder.name}/{name.name}")[0] == 404
        code, errors = page.end()
        assert (code, errors) == (0, "")
    left = {path.name for path in tmp_path.iterdir()}
    assert not any(name.startswith(("prip-demo-", "gradio")) for name in left), left


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="wants POSIX signals")
@pytest.mark.parametrize(("before", "said"), [("SIG_DFL", "ended"), ("SIG_IGN", "went on")])
def test_a_closed_terminal_ends_it_unless_nohup_forbids_that(before: str, said: str) -> None:
    code = (
        "import os, signal; from prip.inference.commands.demo import interrupted_by_signals\n"
        f"signal.signal(signal.SIGHUP, signal.{before})\n"
        "try:\n"
        "    with interrupted_by_signals():\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('went on')\n"
        "except KeyboardInterrupt:\n"
        f"    print('ended', end=''); assert signal.getsignal(signal.SIGHUP) == signal.{before}\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == said


@pytest.mark.parametrize(
    ("method", "path", "served"),
    [
        ("GET", "/", True),
        ("HEAD", "/", True),
        ("GET", "/assets/index.js", True),
        ("POST", "/gradio_api/queue/join", True),
        ("GET", "/gradio_api/file=/pictures/a.png", True),
        ("GET", "/gradio_api/file=/pictures/gradio/a.png", False),
        ("GET", "/gradio_api/file=/pictures/../etc/passwd", False),
        ("GET", "/gradio_api/file=https://site.example/a.png", False),
        ("GET", "/gradio_api/proxy=https://site.example/a.png", False),
        ("GET", "/gradio_api/info", False),
        ("POST", "/gradio_api/component_server", False),
        ("POST", "/gradio_api/vibe-edit", False),
        ("POST", "/", False),
        ("POST", "/assets/index.js", False),
        ("DELETE", "/", False),
    ],
)
def test_what_the_page_asks_for_is_served_and_nothing_else(method: str, path: str, served: bool) -> None:
    assert PageGuard("127.0.0.1", (), Path("/pictures")).is_of_the_page(method, path) is served


@pytest.mark.parametrize(
    ("body", "plain"),
    [
        (b'{"data": [null, "a cat", true, 1.5, [["a", "b"]]], "event_data": {"index": 1}}', True),
        (b'{"event_id": "x"}', True),
        (b'{"data": ["a", [["b", {"path": "c"}]]]}', False),
        (b'{"data": {"path": "c"}}', False),
        (b"[]", False),
        (b"{", False),
        (b"\xff", False),
        (b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", False),
    ],
)
def test_a_field_holds_no_file(body: bytes, plain: bool) -> None:
    assert is_plain(body) is plain


def test_a_host_name_with_a_port_is_refused(capsys) -> None:
    assert main(["demo", "--host-name", "page.example:80"]) == 2
    assert "host_name: expected a name without a port" in capsys.readouterr().err


def test_a_port_that_is_taken_at_the_last_moment_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prip.errors import InputError
    from prip.inference.network.listening import listen
    from prip.inference.page.layout import launch

    class Blocks:
        def launch(self, **_: object) -> None:
            raise OSError("Cannot find empty port")

    with pytest.raises(InputError, match=r"cannot serve on port \d+ of 127\.0\.0\.1: Cannot find empty port"):
        launch(Blocks(), PageGuard("127.0.0.1", (), tmp_path), listen("127.0.0.1", 0))
