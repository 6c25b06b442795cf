"""The server's own page of its routes, in a real browser that reaches no other site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import MISSING, Browser, open_browser
from server_process import ServerProcess

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def page(shared_server: ServerProcess) -> Iterator[Browser]:
    with open_browser() as browser:
        browser.open_page(f"http://127.0.0.1:{shared_server.port}/docs")
        browser.wait(lambda: browser.run("return document.querySelector('.opblock')"), "the first route", 60)
        yield browser


def test_every_route_is_shown_and_nothing_comes_from_elsewhere(page: Browser, shared_server: ServerProcess) -> None:
    shown = page.run("return [...document.querySelectorAll('.opblock-summary-path')].map((one) => one.dataset.path)")
    assert {"/v1/refine", "/v1/images", "/v1/completions", "/healthz"} <= set(shown)
    asked = page.run("return performance.getEntriesByType('resource').map((one) => new URL(one.name).origin)")
    assert set(asked) == {f"http://127.0.0.1:{shared_server.port}"}
    assert page.console_errors() == []


def test_a_request_can_be_tried(page: Browser) -> None:
    page.click(".opblock-summary-path[data-path='/v1/refine']")
    for button in (".try-out__btn", ".execute"):
        page.wait(lambda button=button: page.run(f"return document.querySelector('{button}')"), button)
        page.run(f"document.querySelector('{button}').click()")
    told = "return document.querySelector('.live-responses-table')?.innerText ?? ''"
    page.wait(lambda: "golden hour" in page.run(told), "the refined prompt", 60)
