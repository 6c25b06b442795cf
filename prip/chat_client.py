"""Client of OpenAI-compatible chat endpoints, with retries."""

from __future__ import annotations

import json
import random
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from prip.errors import InputError, PripError

PATH = "chat/completions"
_REDACTED = "[key]"
_GZIP_OR_ZLIB = 47
"""zlib's window size for both formats."""
_TRANSIENT = (408, 409, 425, 429)
_BACKOFF = 2.0
ANSWER_BYTES = 1 << 20
"""Longest answer that is read."""


class ChatError(PripError):
    """A chat endpoint returned no usable answer."""


class _TransientError(Exception):
    """A failure that a retry may fix, with the server's Retry-After in seconds, if any."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class ChatClient:
    """Sends requests to one endpoint; thread-safe."""

    def __init__(
        self,
        base_url: str,
        key: str = "",
        timeout_s: float = 60.0,
        retries: int = 5,
        longest_wait_s: float = 120.0,
        first_wait_s: float = 1.0,
    ) -> None:
        """Create a client.

        Args:
            base_url: Address of the API, without /chat/completions.
            key: Bearer token, never shown in error messages; empty sends none.
            timeout_s: Timeout of each attempt, in which the whole answer must arrive.
            retries: Attempts after the first.
            longest_wait_s: Longest wait between attempts; a longer Retry-After is an error.
            first_wait_s: Wait before the first retry; it doubles with each further one.

        Raises:
            InputError: `base_url` is not an http or https address, or includes credentials or a query.
        """
        import httpx2

        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            shown = parts._replace(netloc="").geturl()
            raise InputError(f"base_url: expected http:// or https:// and a host, got {shown!r}")
        if parts.username or parts.password or parts.query:
            raise InputError("base_url: expected no user, password or query, since settings are written to files")
        self.url = f"{base_url.rstrip('/')}/{PATH}"
        self._key = key
        self.retries = retries
        self.longest_wait_s = longest_wait_s
        self.first_wait_s = first_wait_s
        self._timeout_s = timeout_s
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._http = httpx2.Client(timeout=timeout_s, headers=headers)

    def answer(self, body: Mapping[str, Any], given_up: threading.Event | None = None) -> str:
        """Return the text of the first choice in the endpoint's answer.

        Timeouts, connection errors, status 408, 409, 425, 429 and 5xx, and answers that are not JSON are retried, after
        the server's Retry-After or else with exponential backoff.

        Args:
            body: The request.
            given_up: Set by another thread to stop waiting for a retry.

        Raises:
            ChatError: The retries are used up, the request is refused, or `given_up` is set.
        """
        given_up = given_up or threading.Event()
        for attempt in range(self.retries + 1):
            try:
                return self._request(body)
            except _TransientError as problem:
                asked_s = problem.wait_s
                if asked_s is not None and asked_s > self.longest_wait_s:
                    limit = f"longer than the limit of {self.longest_wait_s:.0f} s"
                    raise ChatError(f"{self.url}: {problem}; Retry-After is {asked_s:.0f} s, {limit}") from problem
                if attempt == self.retries:
                    times = "once" if not attempt else f"{attempt + 1} times"
                    raise ChatError(f"{self.url}: {problem} (tried {times})") from problem
                backoff_s = self.first_wait_s * _BACKOFF**attempt * random.uniform(0.5, 1.0)
                if given_up.wait(min(backoff_s if asked_s is None else asked_s, self.longest_wait_s)):
                    raise ChatError(f"{self.url}: {problem} (given up: another request failed)") from problem
        raise AssertionError("the last attempt either returns or raises")

    def _request(self, body: Mapping[str, Any]) -> str:
        import httpx2

        deadline = time.monotonic() + self._timeout_s
        try:
            with self._http.stream("POST", self.url, json=dict(body)) as response:
                encoding = response.headers.get("Content-Encoding", "")
                text = self._read(response.iter_raw(), encoding, deadline)
        except httpx2.TimeoutException as error:
            raise _TransientError("no answer in time") from error
        except httpx2.TransportError as error:
            reason = self._shown(f"{type(error).__name__}: {error}")
            raise _TransientError(f"could not be reached ({reason})") from error
        status = response.status_code
        if status in _TRANSIENT or status >= 500:
            wait_s = retry_after(response.headers.get("Retry-After"))
            raise _TransientError(f"{status}: {self._shown(text)}", wait_s)
        if status != 200:
            raise ChatError(f"{self.url}: refused with {status}: {self._shown(text)}")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _TransientError(f"expected JSON, got {self._shown(text)}") from error
        return self._text(answer)

    def _read(self, chunks: Iterator[bytes], encoding: str, deadline: float) -> str:
        """Return the text of an answer; raise ChatError for a longer one than ANSWER_BYTES, however it is packed."""
        raw, too_long = bytearray(), f"{self.url}: the answer is longer than {ANSWER_BYTES:,} bytes"
        for chunk in chunks:
            raw += chunk
            if len(raw) > ANSWER_BYTES:
                raise ChatError(too_long)
            if time.monotonic() > deadline:
                raise _TransientError("no answer in time")
        if encoding.lower() not in ("", "identity"):  # not asked for, but some servers always compress
            try:
                raw = bytearray(zlib.decompressobj(_GZIP_OR_ZLIB).decompress(bytes(raw), ANSWER_BYTES + 1))
            except zlib.error as error:
                raise ChatError(f"{self.url}: cannot decode Content-Encoding: {self._shown(encoding)}") from error
            if len(raw) > ANSWER_BYTES:
                raise ChatError(too_long)
        return raw.decode("utf-8", "replace")

    def _text(self, answer: Any) -> str:
        choices = answer.get("choices") if isinstance(answer, dict) else None
        first = choices[0] if isinstance(choices, Sequence) and choices else None
        message = first.get("message") if isinstance(first, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, str) or not content.strip():
            refusal = message.get("refusal") if isinstance(message, dict) else None
            ended = first.get("finish_reason") if isinstance(first, dict) else None
            why = f", {refusal or ended}" if refusal or ended else ""
            raise ChatError(f"{self.url}: the answer has no text{self._shown(why)}: {self._shown(str(answer))}")
        return content

    def _shown(self, text: str) -> str:
        """Return a server's text on one line, without control characters and the key, which some servers repeat."""
        for key in filter(None, (self._key, json.dumps(self._key)[1:-1])):
            text = text.replace(key, _REDACTED)
        return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:300]


def retry_after(value: str | None) -> float | None:
    """Return the seconds in a Retry-After header, a number or a date; None if there is none or it cannot be parsed."""
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
