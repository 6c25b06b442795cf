"""A real browser for tests of pages: Debian's Chromium, headless, driven by selenium; nothing is ever downloaded."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
MISSING = None
if CHROMIUM is None or CHROMEDRIVER is None:
    MISSING = "wants Chromium and its driver, as in: apt-get install chromium chromium-driver"

PHONE, DESKTOP = (390, 844), (1280, 800)
"""Width and height of the page, in CSS pixels."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)

T = TypeVar("T")


class Browser:
    """One browser with an empty profile. `driver` is selenium's, for what has no method here."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open_page(self, url: str) -> None:
        """Goes to a page, and waits until it has loaded."""
        self.driver.get(url)

    def resize(self, width: int, height: int, dark: bool = False, touch: bool = False) -> None:
        """Makes the page that large, in CSS pixels, light or dark, with a finger in place of a mouse where `touch`."""
        command = self.driver.execute_cdp_cmd
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        command("Emulation.setDeviceMetricsOverride", metrics)
        command("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        command("Emulation.setEmulatedMedia", {"features": [scheme]})

    def press(self, keys: str) -> None:
        """Types on the keyboard, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def click(self, selector: str) -> None:
        """Clicks the first element of a CSS selector."""
        self.driver.find_element("css selector", selector).click()

    def text(self, selector: str) -> str:
        """Returns the visible text of the first element of a CSS selector."""
        return self.driver.find_element("css selector", selector).text

    def run(self, script: str) -> Any:
        """Runs JavaScript in the page; returns what its `return` gives."""
        return self.driver.execute_script(script)

    def wait(self, condition: Callable[[], T], what: str, timeout_s: float = 20) -> T:
        """Returns what `condition` gives as soon as it is true. Raises AssertionError, with `what`, if it never is."""
        until = time.monotonic() + timeout_s
        while True:
            found = condition()
            if found:
                return found
            assert time.monotonic() < until, f"waited {timeout_s:g} s for {what}"
            time.sleep(0.02)

    def screenshot(self, path: Path) -> Path:
        """Writes what is seen as a PNG; returns the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(path))
        return path

    def console_errors(self) -> list[str]:
        """Returns what the page complained of since the last call: errors of scripts, files that did not load."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Starts a browser with an empty profile, and ends it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        environment = {**os.environ, "SE_OFFLINE": "true", "SE_AVOID_STATS": "true", "no_proxy": "127.0.0.1,localhost"}
        driver = webdriver.Chrome(options, Service(CHROMEDRIVER, env=environment))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
