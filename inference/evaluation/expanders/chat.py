"""The kind `chat`: any OpenAI-style chat endpoint as a prompt expander, with a prompt template."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from prip.chat_client import ChatClient
from prip.errors import InputError, PripError
from prip.options import check_whole

from ..kinds.registry import Context
from .answers import Wording

_OWN = ("messages", "model", "temperature", "max_tokens", "seed", "stream", "n")


class ChatRefiner:
    """Refines by asking a chat endpoint, several prompts at a time."""

    def __init__(
        self,
        name: str,
        client: ChatClient,
        model: str,
        wording: Wording,
        system: str = "",
        temperature: float | None = 0.0,
        max_tokens: int | None = 200,
        concurrency: int = 4,
        seed: int | None = None,
        send_seed: bool = True,
        per_image: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """system: first message, empty for none. temperature, max_tokens: None leaves them to the endpoint.
        concurrency: requests at a time. seed: sent with every prompt that is asked once, else the seed of its image;
        send_seed False sends none, for endpoints that refuse it. per_image: ask anew for each image. extra: further
        fields of the request.
        """
        self.name = name
        self.sampled = per_image
        self.client = client
        self.wording = wording
        self.system = system
        self.concurrency = concurrency
        self.seed = seed
        self.send_seed = send_seed
        chosen = {"temperature": temperature, "max_tokens": max_tokens}
        named = {field: value for field, value in chosen.items() if value is not None}
        self.body: dict[str, Any] = {"model": model, **named, **(extra or {})}

    def __call__(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Return a refined prompt for each (user prompt, seed).

        Raises ChatError or RefinementError for the first prompt that gets no answer; what waits then is given up.
        """
        given_up = threading.Event()

        def refine(user_prompt: str, seed: int) -> str:
            return self._refine(user_prompt, seed, given_up)

        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting = [pool.submit(refine, *pair) for pair in zip(user_prompts, seeds, strict=True)]
            try:
                for one in wait(waiting, return_when=FIRST_EXCEPTION).done:
                    one.result()  # raises what has failed, without waiting for those before it
                return [one.result() for one in waiting]
            except BaseException:
                given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def attempt(self, user_prompts: Sequence[str], seeds: Sequence[int]) -> list[str | Exception]:
        """Return a refined prompt for each (user prompt, seed), or the ChatError or RefinementError that it ended in:
        each is asked for once, whatever becomes of the others."""
        given_up = threading.Event()

        def refine(user_prompt: str, seed: int) -> str | Exception:
            try:
                return self._refine(user_prompt, seed, given_up)
            except PripError as error:
                return error

        with ThreadPoolExecutor(self.concurrency) as pool:
            try:
                return list(pool.map(refine, user_prompts, seeds))
            except BaseException:
                given_up.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _refine(self, user_prompt: str, seed: int, given_up: threading.Event) -> str:
        return self.wording.refined(user_prompt, self.client.answer(self._request(user_prompt, seed), given_up))

    def _request(self, user_prompt: str, seed: int) -> dict[str, Any]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": self.wording.ask(user_prompt)})
        own = seed if self.sampled else self.seed
        seeded = {"seed": own} if self.send_seed and own is not None else {}
        return {**self.body, **seeded, "messages": messages}


def make_chat(
    name: str,
    context: Context,
    *,
    base_url: str,
    model: str,
    template: str = "{prompt}",
    system: str = "",
    keep_prompt: bool = False,
    after: str = "",
    stop: Sequence[str] = (),
    first_line: bool = True,
    temperature: float | None = 0.0,
    max_tokens: int | None = 200,
    timeout_s: float = 60.0,
    retries: int = 5,
    longest_wait_s: float = 120.0,
    concurrency: int = 4,
    key_variable: str = "",
    send_seed: bool = True,
    per_image: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> ChatRefiner:
    """The kind `chat`. base_url: such as https://api.openai.com/v1. key_variable: the environment variable that holds
    the key, which is written nowhere; empty for none. The rest: fields of `Wording`, `ChatClient` and `ChatRefiner`."""
    for option, value, least in (
        ("retries", retries, 0),
        ("concurrency", concurrency, 1),
        ("max_tokens", max_tokens, 1),
    ):
        if value is not None:
            check_whole(f"refiner {name!r}: {option}", value, least)
    for option, number in (("temperature", temperature), ("timeout_s", timeout_s), ("longest_wait_s", longest_wait_s)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float)) or number < 0):
            raise InputError(f"refiner {name!r}: {option} must be a number of at least 0, it is {number!r}")
    taken = sorted(set(extra or {}) & set(_OWN))
    if taken:
        raise InputError(
            f"refiner {name!r}: extra: {', '.join(taken)} have options of their own, or are not for you to set"
        )
    key = os.environ.get(key_variable, "").strip() if key_variable else ""
    if key_variable and not key:
        raise InputError(
            f"refiner {name!r}: the environment variable {key_variable} should hold the key, it is not set"
        )
    wording = Wording(template, keep_prompt, after, stop, first_line)
    client = ChatClient(base_url, key, timeout_s, retries, longest_wait_s)
    return ChatRefiner(
        name,
        client,
        model,
        wording,
        system,
        temperature,
        max_tokens,
        concurrency,
        context.seed,
        send_seed,
        per_image,
        extra,
    )
