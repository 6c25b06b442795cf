"""The page of `prip annotate` in a real browser: ten answers by keyboard, a server that is killed, and nothing lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browser import DESKTOP, MISSING, PHONE, Browser, open_browser
from made_evaluation import make_evaluation

from prip.inference.annotation.answers import read_answers

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


class Server:
    """The command, as a user starts it."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        command = [sys.executable, "-m", "prip.inference.cli", "annotate", str(folder), "--no-browser"]
        self.address = f"http://127.0.0.1:{port}/"
        self.process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        until = time.monotonic() + 120
        while True:
            assert self.process.poll() is None and time.monotonic() < until, self.process.communicate()[0]
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def place(browser: Browser) -> str:
    return browser.text("#place")


def begin(browser: Browser, address: str, name: str) -> None:
    browser.open_page(address)
    browser.wait(lambda: browser.run("return document.body.dataset.view") == "start", "the start", 60)
    browser.press(f"{name}\n")
    browser.wait(lambda: browser.run("return document.body.dataset.view") == "ask", "the first question", 60)


def test_ten_pairs_by_keyboard_and_a_server_that_is_killed(tmp_path: Path) -> None:
    folder, port = make_evaluation(tmp_path / "evaluation"), free_port()
    server = Server(folder, port, "--items", "12")
    with open_browser() as browser:
        browser.resize(*DESKTOP)
        begin(browser, server.address, "Ann")
        for number in range(1, 11):
            browser.wait(lambda: place(browser) == f"{number} of 12", f"question {number}", 60)  # noqa: B023
            browser.press("abt"[number % 3])
        browser.wait(lambda: place(browser) == "11 of 12", "question 11", 60)
        assert len(read_answers(folder)) == 10
        prompt = browser.text("#prompt")
        server.kill()
        browser.press("a")
        browser.wait(lambda: "not saved yet" in browser.text("#notice"), "word that the server is gone", 60)
        server = Server(folder, port, "--items", "12")
        browser.wait(lambda: place(browser) == "12 of 12", "the answer that waited for the server", 60)
        assert len(read_answers(folder)) == 11 and read_answers(folder)[-1].user_prompt == prompt
        browser.press("u")
        browser.wait(lambda: place(browser) == "11 of 12", "the question that was taken back", 60)
        assert browser.text("#prompt") == prompt and len(read_answers(folder)) == 10
        server.kill()
        server = Server(folder, port, "--items", "12")
        browser.open_page(server.address)
        browser.wait(lambda: place(browser) == "11 of 12", "question 11 of the page opened anew", 60)
        assert {answer.answer for answer in read_answers(folder)} == {"left", "right", "tie"}
    server.kill()


def test_two_tabs_of_one_annotator(tmp_path: Path) -> None:
    folder = make_evaluation(tmp_path / "evaluation")
    server = Server(folder, free_port())
    with open_browser() as browser:
        begin(browser, server.address, "Ann")
        first = browser.driver.current_window_handle
        browser.driver.switch_to.new_window("tab")
        begin(browser, server.address, "\b" * 3 + "ann")
        browser.press("a")
        browser.wait(lambda: place(browser) == "2 of 12", "question 2 in the second tab", 60)
        browser.driver.switch_to.window(first)
        assert place(browser) == "1 of 12"
        browser.press("b")
        browser.wait(lambda: place(browser) == "2 of 12", "question 2 in the first tab", 60)
        assert "answered elsewhere" in browser.text("#notice")
    server.kill()
    assert len(read_answers(folder)) == 1


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_fits_and_complains_of_nothing(tmp_path: Path, size: tuple[int, int]) -> None:
    server = Server(make_evaluation(tmp_path / "evaluation", size=64), free_port(), "--task", "relevance")
    with open_browser() as browser:
        browser.resize(*size, touch=size == PHONE)
        begin(browser, server.address, "Bob")
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")
        bottom = browser.run("return document.querySelector('#answers').getBoundingClientRect().bottom")
        assert bottom <= size[1], "the answers can be reached without scrolling"
        browser.click("[data-answer='2']")
        browser.wait(lambda: place(browser).startswith("2 of"), "the second question", 60)
        assert browser.console_errors() == []
    server.kill()
