"""How a request waits for its batch: no longer than it may, and no longer than its client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class TimedOut(Exception):
    """There was no answer in time."""


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def answer_of(
    future: Future[Result], receive: Callable[[], Awaitable[Any]], deadline: float, timeout_s: float
) -> Result:
    """Return a future's result; where it is given up, it is cancelled, which takes it out of the queue.

    receive: the request's ASGI channel, its body read. deadline: on the event loop's clock, `timeout_s` after the
    request was read. Raises TimedOut, ClientGone, and what the work raised.
    """
    waiting: asyncio.Future[Result] = asyncio.wrap_future(future)
    gone: asyncio.Future[None] = asyncio.ensure_future(_disconnect(receive))
    try:
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        watched: set[asyncio.Future[Any]] = {waiting, gone}
        await asyncio.wait(watched, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        if gone.done():
            raise ClientGone
        raise TimedOut(f"there was no answer within {timeout_s:g} seconds")
    finally:
        waiting.cancel()
        gone.cancel()


async def _disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
