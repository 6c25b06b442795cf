"""The settings of `prip serve`. Importing them loads neither torch nor FastAPI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prip.errors import InputError
from prip.options import check_whole

from ..network.listening import check_host_names, check_origins

MAX_PROMPTS = 32
"""Most prompts in one request."""
MAX_IMAGES = 8
"""Most images per prompt in one request, and most prompts in a request for images."""

MOST_SECONDS = 86_400.0
"""Longest timeout: a day."""


@dataclass(frozen=True)
class ServerSettings:
    """How requests are batched, and limits on a request.

    Raises:
        InputError: A setting is out of its range.
    """

    max_batch: int = 64
    """Most texts in one batch (prompts times their alternatives); 1 turns batching off."""
    max_draw_batch: int = 8
    """Most images in one batch. Requests share a batch only if it takes at most a quarter of their time."""
    max_wait_ms: float = 5.0
    """Milliseconds that a batch waits to fill up, counted from its first request."""
    queue_size: int = 512
    """Most prompts waiting; further requests get 503."""
    timeout_s: float = 30.0
    """Seconds to answer a request once it is read; then 504."""
    client_timeout_s: float = 10.0
    """Seconds for a client to send its headers, to send its body, and to resume reading an answer."""
    max_body_bytes: int = 1 << 20
    """Largest request body; above that 413."""
    host_names: Sequence[str] = ()
    """Further host names to answer under, such as that of a proxy or container."""
    allow_origins: Sequence[str] = ()
    """Sites whose pages may send requests, such as https://studio.example; "*" for every site."""
    root_path: str = ""
    """Path under which a proxy serves this server, such as /prip, and which it removes from requests."""

    def __post_init__(self) -> None:
        check_whole("max_batch", self.max_batch, 1)
        check_whole("max_draw_batch", self.max_draw_batch, 1)
        check_whole("queue_size", self.queue_size, MAX_PROMPTS)
        _check_number("timeout_s", self.timeout_s, 0.001, MOST_SECONDS)
        _check_number("client_timeout_s", self.client_timeout_s, 0.001, MOST_SECONDS)
        _check_number("max_wait_ms", self.max_wait_ms, 0, 1000 * MOST_SECONDS)
        if self.max_wait_ms >= 1000 * self.timeout_s:
            raise InputError(
                f"max_wait_ms: expected less than {1000 * self.timeout_s:g} (timeout_s), got {self.max_wait_ms!r}"
            )
        check_whole("max_body_bytes", self.max_body_bytes, 1024)
        check_host_names(self.host_names)
        check_origins(self.allow_origins)
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path, re.ASCII):
            raise InputError(
                f"root_path: expected a path without a slash at its end, such as /prip, got {self.root_path!r}"
            )


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InputError(f"{name}: expected a number from {least:g} to {most:g}, got {value!r}")
