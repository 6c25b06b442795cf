"""The settings of `prip serve`, checked in the words that the user typed, without torch or FastAPI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prip.errors import InputError
from prip.options import check_whole

from ..network.listening import check_host_names

MAX_PROMPTS = 32
"""The most prompts of one request."""
MAX_IMAGES = 8
"""The most images of each prompt of one request; it may hold as many prompts."""


MOST_SECONDS = 86_400.0
"""The longest that anything may take: a day."""


@dataclass(frozen=True)
class ServerSettings:
    """How requests are put into batches, and what a request may cost. Raises InputError for what cannot be used."""

    max_batch: int = 64
    """Texts that are made in one batch: prompts, times their alternatives; 1 turns batching off."""
    max_draw_batch: int = 8
    """Images that are drawn in one batch; requests share one as long as it takes no more than a quarter of their
    time."""
    max_wait_ms: float = 5.0
    """How long a batch that is not full waits for more, from its first request on."""
    queue_size: int = 512
    """Prompts that may wait; what comes when they do is refused with 503."""
    timeout_s: float = 30.0
    """In which a request must be answered from when it was read; 504 after that."""
    client_timeout_s: float = 10.0
    """In which a client must send its headers, in which its body, and in which it must read on in an answer."""
    max_body_bytes: int = 1 << 20
    """The largest body of a request; 413 above that."""
    host_names: Sequence[str] = ()
    """Under which the server answers besides its own address: that of a proxy, or of a container."""

    def __post_init__(self) -> None:
        check_whole("max_batch", self.max_batch, 1)
        check_whole("max_draw_batch", self.max_draw_batch, 1)
        check_whole("queue_size", self.queue_size, MAX_PROMPTS)
        _check_number("timeout_s", self.timeout_s, 0.001, MOST_SECONDS)
        _check_number("client_timeout_s", self.client_timeout_s, 0.001, MOST_SECONDS)
        _check_number("max_wait_ms", self.max_wait_ms, 0, 1000 * MOST_SECONDS)
        if self.max_wait_ms >= 1000 * self.timeout_s:
            raise InputError(f"max_wait_ms must be less than timeout_s, {self.max_wait_ms!r} ms are not")
        check_whole("max_body_bytes", self.max_body_bytes, 1024)
        check_host_names(self.host_names)


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InputError(f"{name} must be a number from {least:g} to {most:g}, it is {value!r}")
