"""The page of `prip demo` in a real browser, as a person uses it: one server with the embedded checkpoint, offline."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import DESKTOP, MISSING, PHONE, Browser, open_browser
from demo_process import demo

from prip.miniature.vocabulary import SUBJECTS

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the command serves, as a user starts it."""
    with demo(tmp_path_factory.mktemp("demo")) as process:
        yield process.address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(params=["desktop"])
def page(request: pytest.FixtureRequest, chromium: Browser, address: str) -> Browser:
    """The page, opened anew by someone who was never there, at a size."""
    size = {"desktop": DESKTOP, "phone": PHONE}[request.param]
    chromium.resize(*size, touch=size == PHONE)
    chromium.open_page(address)
    chromium.run("localStorage.clear()")
    chromium.open_page(address)
    chromium.wait(lambda: chromium.run("return document.activeElement?.matches('#prompt textarea')"), "the page", 60)
    chromium.wait(lambda: chromium.run("return window.prip !== undefined"), "the page's own script", 60)
    chromium.console_errors()  # of the page before, which was left while it still spoke with its server
    return chromium


def value(page: Browser, selector: str) -> str:
    return page.run(f"return document.querySelector({selector!r}).value")


def refined(page: Browser, beginning: str) -> str:
    """Waits for the refined prompt in its field, for its marks and for both pictures of two seeds."""
    page.wait(lambda: value(page, "#refined-text textarea").startswith(beginning), "the refined prompt", 60)
    page.wait(lambda: page.run(DRAWN) == 4, "four pictures", 60)
    text = value(page, "#refined-text textarea")
    assert page.text("#marked") == text
    return text


def alert(page: Browser) -> str:
    return page.run("return document.querySelector('#notice [role=alert]')?.textContent ?? ''")


DRAWN = "return [...document.querySelectorAll('#board img')].filter((one) => one.naturalWidth === 32).length"


def test_the_page_says_what_it_does_and_what_the_default_knows(page: Browser) -> None:
    head = page.text("#head")
    assert "PRIP keeps your words and adds what image models respond to" in head and "prip-mini · drawn by" in head
    known = page.run("return document.querySelector('#head details p').textContent")
    assert all(f"{subject.name}" in known for subject in SUBJECTS) and "prip demo --generator" in known


@pytest.mark.parametrize("page", ["desktop", "phone"], indirect=True)
def test_a_picture_is_enlarged_and_saved_and_the_history_cleared(page: Browser) -> None:
    page.press("a cat")
    page.click("#press")
    refined(page, "a cat, ")
    page.run("document.querySelectorAll('#board .zoom')[1].click()")
    shown = "const zoom = document.querySelector('#zoom'); return [zoom.open, zoom.querySelector('img').clientWidth]"
    page.wait(lambda: page.run(shown)[0], "the enlarged picture")
    assert page.run(shown)[1] > 1.5 * page.run("return document.querySelector('#board img').clientWidth")
    assert page.run("return document.querySelector('#zoom a').download") == "refined-0.png"
    address = page.run("return document.querySelector('#zoom a').href")
    assert page.run("return document.querySelectorAll('#board img')[1].src") == address
    page.click("#zoom button")
    assert page.run(shown)[0] is False
    entries = "return document.querySelectorAll('.history [data-index]').length"
    page.wait(lambda: page.run(entries) == 1, "the prompt in the history")
    page.click("#clear")
    page.wait(lambda: page.run(entries) == 0, "an empty history")
    assert page.run("return getComputedStyle(document.querySelector('#clear')).display") == "none"
    page.wait(lambda: page.run("return localStorage.getItem('prip-history')?.includes('a cat')") is not True, "nothing")
    assert page.console_errors() == []


def test_type_press_see_copy_and_restore(page: Browser) -> None:
    page.press("a cat")
    page.click("#press")
    first = refined(page, "a cat, ")
    marks = page.run("return [...document.querySelectorAll('#marked ins')].map((one) => one.textContent)")
    assert ["a cat", *marks] == first.split(", ")
    assert page.run("return getComputedStyle(document.querySelector('#board img')).imageRendering") == "pixelated"
    assert page.text("#board table").startswith("Mean score Your prompt Refined Gain\nmini-hps ")
    page.driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    page.click("#copy")
    page.wait(lambda: page.text("#copy") == "Copied", "word that it was copied")
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert page.driver.execute_async_script(read) == first

    page.run("document.querySelector('#prompt textarea').select()")
    page.press("a robot\n")
    second = refined(page, "a robot, ")
    entries = "return [...document.querySelectorAll('#past b')].map((one) => one.textContent)"
    page.wait(lambda: page.run(entries) == ["a robot", "a cat"], "two entries of history")
    page.click("#past li:nth-child(2) button")
    assert refined(page, "a cat, ") == first and value(page, "#prompt textarea") == "a cat"
    assert page.console_errors() == []
    page.driver.refresh()
    page.wait(lambda: page.run(entries) == ["a robot", "a cat"], "the history of a page that was opened anew", 60)
    page.click("#past li:nth-child(1) button")
    assert refined(page, "a robot, ") == second


def test_keyboard_alone_an_error_that_loses_nothing_and_an_edit(page: Browser) -> None:
    page.press("\n")
    page.wait(lambda: alert(page).startswith("There is no prompt yet"), "the error", 60)
    page.press(" .,\n")
    page.wait(lambda: "at least one word" in alert(page), "the next error", 60)
    assert value(page, "#prompt textarea") == " .,"
    page.press("\b\b\ba cat\n")
    text = refined(page, "a cat, ")
    assert alert(page) == ""
    stops = []
    for _ in range(40):
        page.press("\t")
        stops.append(page.run("return document.activeElement.closest('[id]')?.id ?? ''"))
        outline = page.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or stops[-1] not in ("press", "copy", "draw"), "where one is can be seen"
        if page.run("return document.activeElement.matches('#refined-text textarea')"):
            break
    assert stops[0] == "press" and "refined-text" in stops
    assert page.run("return document.querySelector('#marked').getAttribute('aria-live')") == "polite"
    assert page.run(OPEN) == "false"
    page.run("document.querySelector('#more > button').focus()")
    page.press(" ")
    page.wait(lambda: page.run(OPEN) == "true", "word that more options show")
    page.run("document.querySelector('#refined-text textarea').focus()")
    page.run("document.activeElement.setSelectionRange(9999, 9999)")
    page.press(", in the rain\n")
    edited = f"{text}, in the rain"
    page.wait(lambda: page.text("#marked") == edited, "the edit, marked", 60)
    page.wait(lambda: page.run(LATEST) == edited, "the edit in the history", 60)


OPEN = "return document.querySelector('#more > button').ariaExpanded"
LATEST = "return document.querySelector('#past li span').textContent"


@pytest.mark.parametrize("page", ["phone"], indirect=True)
def test_a_phone_has_one_column_with_large_targets_and_no_foreign_host_is_asked(page: Browser, address: str) -> None:
    page.click("#examples li:nth-child(2) button")
    refined(page, "a rocket in winter, ")
    assert page.run("return document.documentElement.scrollWidth") <= PHONE[0]
    wide = "return [...document.querySelectorAll('#flow *')].filter((e) => e.getBoundingClientRect().right > 391)"
    assert page.run(wide) == []
    lefts = "return ['ask', 'refined', 'pictures', 'past'].map((id) => document.getElementById(id).offsetLeft)"
    assert len(set(page.run(lefts))) == 1
    small = (
        "return [...document.querySelectorAll('#flow button')].filter((e) => e.offsetParent && e.offsetHeight < 44)"
        ".map((e) => e.outerHTML)"
    )
    assert page.run(small) == []
    hosts = page.run("return performance.getEntriesByType('resource').map((one) => new URL(one.name, location).origin)")
    assert {host for host in hosts if host != "null"} == {address.rstrip("/")}
    assert page.console_errors() == []
