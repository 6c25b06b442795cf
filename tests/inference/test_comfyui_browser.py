"""The node's script in a real browser, with a small stand-in for ComfyUI's own: widgets, and what it calls when."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import MISSING, Browser, open_browser

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
SCRIPT = Path(__file__).resolve().parents[2] / "inference" / "comfyui" / "web" / "prip.js"

APP = """
export const app = {
  toasts: [],
  registerExtension(extension) { app.extension = extension; },
  extensionManager: { toast: { add: (toast) => app.toasts.push(toast) } },
};
window.app = app;
"""
"""scripts/app.js of the host, as far as the script uses it"""

PAGE = """<!doctype html><textarea id="field"></textarea><script type="module">
import { app } from "./scripts/app.js";
import "./extensions/prip/prip.js";
const field = document.querySelector("#field");
const text = {  // a multiline text widget: setting its value calls back, and so does typing
  name: "refined_prompt",
  get value() { return field.value; },
  set value(value) { field.value = value; this.callback?.(value); },
  serializeValue: () => field.value,
};
field.addEventListener("input", () => text.callback?.(field.value));
window.node = {
  comfyClass: "PripRefinePrompt",
  widgets: [{ name: "prompt", value: "a cat" }, text, { name: "keep_edit", value: false }],
  executed: 0,
  onExecuted() { this.executed += 1; },
};
window.load = (values) => values.forEach((value, place) => { node.widgets[place].value = value; });
window.state = () => [text.value, node.widgets[2].value, text.serializeValue()];
app.extension.nodeCreated({ comfyClass: "KSampler" });
app.extension.nodeCreated(node);
window.ready = true;
</script>"""


class Handler(BaseHTTPRequestHandler):
    """Serves the page, the stand-in and the script, where ComfyUI serves them."""

    def do_GET(self) -> None:
        bodies = {"/": PAGE, "/scripts/app.js": APP, "/extensions/prip/prip.js": SCRIPT.read_text(encoding="utf-8")}
        body = bodies.get(self.path, "")
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "text/javascript")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open_browser() as opened:
        opened.url = f"http://127.0.0.1:{server.server_address[1]}/"  # type: ignore[attr-defined]
        yield opened
    server.shutdown()


@pytest.fixture
def page(browser: Browser) -> Browser:
    browser.open_page(browser.url)  # type: ignore[attr-defined]
    browser.wait(lambda: browser.run("return window.ready"), "the script")
    return browser


def state(page: Browser) -> list[Any]:
    """What the field shows, whether it is kept, and what ComfyUI sends."""
    return page.run("return state()")


def ran(page: Browser, text: str, notes: list[str] | None = None) -> None:
    page.run(f"node.onExecuted({json.dumps({'refined_prompt': [text], 'notes': notes or []})})")


def test_what_was_refined_is_shown_and_is_no_input(page: Browser) -> None:
    ran(page, "a cat, golden hour")
    assert state(page) == ["a cat, golden hour", False, ""]
    ran(page, "a cat, bokeh")
    assert state(page) == ["a cat, bokeh", False, ""]
    assert page.run("return node.executed") == 2, "what others do after a run is still done"
    assert page.console_errors() == []


def test_what_is_typed_is_kept_and_sent(page: Browser) -> None:
    ran(page, "a cat, golden hour")
    page.click("#field")
    page.press(", rain")
    assert state(page) == ["a cat, golden hour, rain", True, "a cat, golden hour, rain"]
    ran(page, "another text")
    assert state(page)[0] == "a cat, golden hour, rain"
    page.run("node.widgets[2].value = false")
    ran(page, "a cat, golden hour")
    assert state(page) == ["a cat, golden hour", False, ""]


def test_a_stored_workflow_comes_back_as_it_was(page: Browser) -> None:
    page.run("load(['a cat', 'a cat, golden hour', false])")
    assert state(page) == ["a cat, golden hour", False, ""]
    page.run("load(['a cat', 'my own text', true])")
    assert state(page) == ["my own text", True, "my own text"]


def test_what_prip_warns_of_is_shown(page: Browser) -> None:
    ran(page, "a cat", ["1 prompt was returned unchanged"])
    toast = page.run("return app.toasts[0]")
    assert (toast["severity"], toast["summary"], toast["detail"]) == ("warn", "PRIP", "1 prompt was returned unchanged")
