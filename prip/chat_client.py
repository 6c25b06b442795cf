"""A client of OpenAI-style chat endpoints: one answer to one list of messages, with patience and clear errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from prip.errors import InputError, PripError

PATH = "chat/completions"
_HIDDEN = "[key]"
_PASSING = (408, 409, 425, 429)
_GROWTH = 2.0


class ChatError(PripError):
    """A chat endpoint gave no answer."""


class _TryAgain(Exception):
    """What may go better next time, and for how many seconds the server wants to be left alone, if it says so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class ChatClient:
    """Asks one endpoint; may be used from several threads."""

    def __init__(
        self,
        base_url: str,
        key: str = "",
        timeout_s: float = 60.0,
        retries: int = 5,
        longest_wait_s: float = 120.0,
        first_wait_s: float = 1.0,
    ) -> None:
        """base_url: up to and without /chat/completions. key: sent as a bearer token, empty for none; no message of
        this class holds it. timeout_s: for each try. retries: after the first try. longest_wait_s: at most so much
        between two tries; a server that asks for more is given up. first_wait_s: before the first retry, then doubled.
        """
        import httpx2

        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"base_url: wanted http:// or https:// and a host, got {parts._replace(netloc='').geturl()!r}"
            )
        if parts.username or parts.password or parts.query:
            raise InputError("base_url: wanted no user, password or query in it: settings are written to files")
        self.url = f"{base_url.rstrip('/')}/{PATH}"
        self._key = key
        self.retries = retries
        self.longest_wait_s = longest_wait_s
        self.first_wait_s = first_wait_s
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(timeout=timeout_s, headers=headers)

    def answer(self, body: Mapping[str, Any], given_up: threading.Event | None = None) -> str:
        """Returns the text of the first choice that the endpoint gives for a request.

        Tries again after time-outs, broken connections, 408, 409, 425, 429, 5xx and answers that are no JSON, waiting
        as long as Retry-After says or else twice as long each time. Raises ChatError, which says how often it was
        tried, when that does not help, at once for what a retry cannot change, and when another thread has `given_up`.
        """
        given_up = given_up or threading.Event()
        for tried in range(self.retries + 1):
            try:
                return self._once(body)
            except _TryAgain as problem:
                wanted = problem.wait_s
                if wanted is not None and wanted > self.longest_wait_s:
                    raise ChatError(
                        f"{self.url}: {problem}; it asks to be left alone for {wanted:.0f} s, "
                        f"{self.longest_wait_s:.0f} s are allowed"
                    ) from problem
                if tried == self.retries:
                    times = "once" if not tried else f"{tried + 1} times"
                    raise ChatError(f"{self.url}: {problem} (tried {times})") from problem
                growing = self.first_wait_s * _GROWTH**tried * random.uniform(0.5, 1.0)
                if given_up.wait(min(growing if wanted is None else wanted, self.longest_wait_s)):
                    raise ChatError(f"{self.url}: {problem} (given up: another request failed)") from problem
        raise AssertionError("the last try either returns or raises")

    def _once(self, body: Mapping[str, Any]) -> str:
        import httpx2

        try:
            response = self._http.post(self.url, json=dict(body))
        except httpx2.TimeoutException as error:
            raise _TryAgain("no answer in time") from error
        except httpx2.TransportError as error:
            raise _TryAgain(f"could not be reached ({self._told(f'{type(error).__name__}: {error}')})") from error
        status = response.status_code
        if status in _PASSING or status >= 500:
            raise _TryAgain(f"{status}: {self._told(response.text)}", retry_after(response.headers.get("Retry-After")))
        if status != 200:
            raise ChatError(f"{self.url}: refused with {status}: {self._told(response.text)}")
        try:
            held = response.json()
        except ValueError as error:
            raise _TryAgain(f"the answer is no JSON: {self._told(response.text)}") from error
        return self._text(held)

    def _text(self, held: Any) -> str:
        choices = held.get("choices") if isinstance(held, dict) else None
        first = choices[0] if isinstance(choices, Sequence) and choices else None
        message = first.get("message") if isinstance(first, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or not content.strip():
            refusal = message.get("refusal") if isinstance(message, dict) else None
            ended = first.get("finish_reason") if isinstance(first, dict) else None
            why = f", {refusal or ended}" if refusal or ended else ""
            raise ChatError(f"{self.url}: the answer holds no text{self._told(why)}: {self._told(str(held))}")
        return content

    def _told(self, text: str) -> str:
        """Returns what a server wrote on one line, without the key, which some repeat."""
        if self._key:
            text = text.replace(self._key, _HIDDEN)
        return " ".join(text.split())[:300]


def retry_after(value: str | None) -> float | None:
    """Returns the seconds that a Retry-After header asks for, as such or by a date; None where it cannot be read."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.fromtimestamp(time.time(), UTC)).total_seconds())
