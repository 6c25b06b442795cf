"""The kind `chat`: any OpenAI-style chat endpoint as a prompt expander."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prip.chat_client import ChatClient
from prip.errors import InputError, PripError
from prip.options import check_whole

from ..kinds.registry import Context
from .answers import Wording

_RESERVED = ("messages", "model", "temperature", "max_tokens", "seed", "stream", "n")


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint, and how patiently it is asked."""

    base_url: str
    """For example https://api.openai.com/v1."""
    timeout_s: float = 60.0
    """Time limit of each attempt, in seconds."""
    retries: int = 5
    """Attempts after the first one."""
    longest_wait_s: float = 120.0
    """Longest wait between two attempts, in seconds."""
    key_variable: str = ""
    """Environment variable with the API key, which is never written anywhere; empty for none."""

    def __post_init__(self) -> None:
        check_whole("retries", self.retries, 0)
        for name in ("timeout_s", "longest_wait_s"):
            _check_not_negative(name, getattr(self, name))

    def client(self) -> ChatClient:
        """Return a client. Raises InputError when the key is not set, or the URL cannot be used."""
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        if self.key_variable and not key:
            raise InputError(f"key_variable: expected the API key in the environment variable {self.key_variable}")
        return ChatClient(self.base_url, key, self.timeout_s, self.retries, self.longest_wait_s)


@dataclass(frozen=True)
class ChatRequest:
    """What every request holds."""

    model: str
    system: str = ""
    """The system message; empty for none."""
    temperature: float | None = 0.0
    """None leaves it to the endpoint."""
    max_tokens: int | None = 200
    """None leaves it to the endpoint."""
    send_seed: bool = True
    """Whether to send a seed; some endpoints refuse it."""
    per_image: bool = False
    """Whether to ask once per image, with the image's seed, instead of once per prompt."""
    extra: Mapping[str, Any] | None = None
    """Further fields of the request."""

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            check_whole("max_tokens", self.max_tokens, 1)
        if self.temperature is not None:
            _check_not_negative("temperature", self.temperature)
        if reserved := sorted(set(self.extra or {}) & set(_RESERVED)):
            raise InputError(f"extra: expected fields without an option of their own, got {', '.join(reserved)}")

    def body(self, text: str, seed: int | None) -> dict[str, Any]:
        """Return the JSON of a request for one user message."""
        chosen = {"temperature": self.temperature, "max_tokens": self.max_tokens, **(self.extra or {})}
        named = {field: value for field, value in chosen.items() if value is not None or field in (self.extra or {})}
        seeded = {"seed": seed} if self.send_seed and seed is not None else {}
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return {"model": self.model, **named, **seeded, "messages": [*messages, {"role": "user", "content": text}]}


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise InputError(f"{name}: expected a number of at least 0, got {value!r}")


class ChatRefiner:
    """Refines by asking a chat endpoint, several prompts at a time."""

    def __init__(
        self,
        name: str,
        client: ChatClient,
        request: ChatRequest,
        wording: Wording,
        *,
        concurrency: int = 4,
        seed: int | None = None,
    ) -> None:
        """concurrency: simultaneous requests. seed: sent with every prompt unless the request is `per_image`."""
        self.name = name
        self.sampled = request.per_image
        self.client = client
        self.request = request
        self.wording = wording
        self.concurrency = concurrency
        self.seed = seed

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return a refined prompt for each (user prompt, seed).

        Raises:
            ChatError: A request failed; those that still wait are cancelled.
            RefinementError: An answer holds no prompt; as above.
        """
        with self._pool() as (pool, given_up):
            pairs = zip(user_prompts, seeds, strict=True)
            waiting = [pool.submit(self._refine, *pair, given_up) for pair in pairs]
            for future in wait(waiting, return_when=FIRST_EXCEPTION).done:
                future.result()  # raises the failure at once, without waiting for earlier requests
            return [future.result() for future in waiting]

    def attempt(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str | Exception]:
        """Return a refined prompt for each (user prompt, seed), or its ChatError or RefinementError."""

        def refine(user_prompt: str, seed: int) -> str | Exception:
            try:
                return self._refine(user_prompt, seed, given_up)
            except PripError as error:
                return error

        with self._pool() as (pool, given_up):
            return list(pool.map(refine, user_prompts, seeds))

    @contextmanager
    def _pool(self) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
        """Yield a pool, and an event that ends the waits of its requests; an error cancels those not yet sent."""
        given_up = threading.Event()
        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                yield pool, given_up
            except BaseException:
                given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _refine(self, user_prompt: str, seed: int, given_up: threading.Event) -> str:
        body = self.request.body(self.wording.ask(user_prompt), seed if self.sampled else self.seed)
        return self.wording.refined(user_prompt, self.client.answer(body, given_up))


def make_chat(
    name: str, context: Context, *, endpoint: Endpoint, request: ChatRequest, wording: Wording, concurrency: int = 4
) -> ChatRefiner:
    """The kind `chat`. concurrency: simultaneous requests; the other options are those of the dataclasses."""
    check_whole("concurrency", concurrency, 1)
    return ChatRefiner(name, endpoint.client(), request, wording, concurrency=concurrency, seed=context.seed)
