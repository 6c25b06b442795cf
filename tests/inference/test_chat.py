"""The refiner `chat` against a small HTTP server that answers as chat endpoints do, and fails as they do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from chat_endpoint import Endpoint, Reply, said, serving

from prip.chat_client import ChatClient, ChatError, retry_after
from prip.errors import InputError
from prip.inference.evaluation.expanders.answers import RefinementError
from prip.inference.evaluation.kinds.registry import REFINERS, Context

CONTEXT = Context(parts=None, device="cpu", seed=5)  # type: ignore[arg-type]
KEY = "sk-very-secret"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as state:
        yield state


def made_chat(**options: Any):
    return REFINERS.make("gpt", {"kind": "chat", "model": "tiny", **options}, CONTEXT)


def refiner(endpoint: Endpoint, **options: Any):
    made = made_chat(base_url=endpoint.url, **options)
    made.client.first_wait_s = 0.01
    return made


def test_what_is_asked_and_what_comes_back(endpoint: Endpoint) -> None:
    made = refiner(endpoint, template="Refine: {prompt}", system="You refine.", max_tokens=40, extra={"top_p": 0.9})
    assert made(["a cat", "a dog"], [1, 2]) == ["REFINE: A CAT", "REFINE: A DOG"]
    messages = [{"role": "system", "content": "You refine."}, {"role": "user", "content": "Refine: a cat"}]
    settings = {"model": "tiny", "temperature": 0.0, "max_tokens": 40, "top_p": 0.9, "seed": 5}
    assert {**settings, "messages": messages} in endpoint.requests and len(endpoint.requests) == 2
    assert set(endpoint.paths) == {"/v1/chat/completions"}
    assert all("Authorization" not in headers for headers in endpoint.headers)


def test_seeds_go_along_where_they_count(endpoint: Endpoint) -> None:
    once = refiner(endpoint)
    anew = refiner(endpoint, per_image=True, temperature=1.0)
    silent = refiner(endpoint, send_seed=False, temperature=None, max_tokens=None)
    assert (once.sampled, anew.sampled) == (False, True)
    for made in (once, anew, silent):
        made(["a cat"], [77])
    assert [asked.get("seed") for asked in endpoint.requests] == [5, 77, None]
    assert set(endpoint.requests[2]) == {"model", "messages"}


def test_unicode_goes_there_and_back(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(said("“猫, золотой час 🐈”\nEnjoy!"))]
    assert refiner(endpoint)(["eine Katze 🐈"], [0]) == ["猫, золотой час 🐈"]
    assert endpoint.requests[0]["messages"][0]["content"] == "eine Katze 🐈"


PASSING = {
    "429": Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.05"}),
    "500": Reply(b"oops", 500),
    "503": Reply(b"", 503, {"Retry-After": "0"}),
    "no JSON": Reply(b"<html>gateway</html>"),
    "half JSON": Reply(b'{"choices": [{"mess'),
    "hung up": Reply(hang_up=True),
    "too slow": Reply(wait_s=1.5),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_is_tried_again(endpoint: Endpoint, case: str) -> None:
    endpoint.replies = [PASSING[case]]
    assert refiner(endpoint, timeout_s=0.4)(["a cat"], [0]) == ["A CAT"]
    assert len(endpoint.requests) == 2


def test_retry_after_is_kept_to_and_may_ask_too_much(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply({}, 429, {"Retry-After": "0.6"})]
    began = time.monotonic()
    assert refiner(endpoint)(["a cat"], [0]) == ["A CAT"]
    assert time.monotonic() - began >= 0.6
    endpoint.replies = [Reply({"error": "quota"}, 429, {"Retry-After": "3600"})]
    with pytest.raises(ChatError, match="429: .*quota.*Retry-After is 3600 s, longer than the limit of 120 s"):
        refiner(endpoint)(["a cat"], [0])
    assert retry_after(None) is None and retry_after("soon") is None and retry_after("-3") == 0
    assert 25 < (retry_after(formatdate(time.time() + 30, usegmt=True)) or 0) <= 30


LASTING = {
    "400": ([Reply({"error": {"message": "no such model"}}, 400)], "refused with 400: .*no such model", 1),
    "401": ([Reply({"error": f"bad key {KEY}"}, 401)], r"refused with 401: .*bad key \[key\]", 1),
    "302": ([Reply({}, 302, {"Location": "http://127.0.0.1:1/"})], "refused with 302", 1),
    "no choices": ([Reply({"choices": []})], "the answer has no text", 1),
    "not an object": ([Reply(["a cat"])], "the answer has no text", 1),
    "content is null": ([Reply(said(None, finish_reason="content_filter"))], "no text, content_filter", 1),
    "always 500": ([Reply(b"oops", 500)] * 9, r"500: oops \(tried 3 times\)", 3),
    "always malformed": ([Reply(b"oops")] * 9, r"expected JSON, got oops \(tried 3 times\)", 3),
    "always slow": ([Reply(wait_s=0.5)] * 9, r"no answer in time \(tried 3 times\)", 3),
}


@pytest.mark.parametrize("case", LASTING)
def test_what_lasts_is_an_error_and_no_prompt(
    endpoint: Endpoint, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.replies, message, times = list(LASTING[case][0]), LASTING[case][1], LASTING[case][2]
    monkeypatch.setenv("TINY_KEY", KEY)
    made = refiner(endpoint, retries=2, timeout_s=0.2, key_variable="TINY_KEY")
    with caplog.at_level(0), pytest.raises(ChatError, match=message) as caught:
        made(["a cat"], [0])
    assert len(endpoint.requests) == times and endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in str(caught.value) + caplog.text


def test_an_answer_without_a_prompt_is_an_error(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(said('""'))]
    with pytest.raises(RefinementError, match="the answer for 'a cat' holds no prompt"):
        refiner(endpoint)(["a cat"], [0])


def test_a_server_that_is_not_there_is_told(endpoint: Endpoint) -> None:
    made = made_chat(base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(
        ChatError, match=r"http://127.0.0.1:9/v1/chat/completions: could not be reached .*\(tried once\)"
    ):
        made(["a cat"], [0])


def test_so_many_requests_at_a_time_and_no_more(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(wait_s=0.05)] * 12
    prompts = [f"cat {number}" for number in range(12)]
    assert refiner(endpoint, concurrency=3)(prompts, range(12)) == [prompt.upper() for prompt in prompts]
    assert endpoint.most_at_once == 3


def test_one_failure_ends_the_others_waiting(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply({}, 429, {"Retry-After": "30"}), Reply({}, 400)] + [Reply(wait_s=0.05)] * 20
    began = time.monotonic()
    with pytest.raises(ChatError, match="refused with 400|given up"):
        refiner(endpoint, concurrency=2)([f"cat {number}" for number in range(20)], range(20))
    assert time.monotonic() - began < 10 and len(endpoint.requests) < 10


BAD_OPTIONS = [
    ({"base_url": "localhost:8000"}, "base_url: expected http:// or https://"),
    ({"base_url": "https://me:secret@host/v1"}, "base_url: expected no user, password"),
    (
        {"key_variable": "NO_SUCH_VARIABLE"},
        "key_variable: expected the API key in the environment variable NO_SUCH_VARIABLE",
    ),
    ({"temperature": -1}, "temperature: expected a number of at least 0, got -1"),
    ({"concurrency": 0}, "concurrency.* a whole number of at least 1"),
    ({"retries": 1.5}, "retries: expected an integer, got 1.5"),
    ({"template": "Refine"}, "template: expected a text that holds {prompt} once"),
    ({"extra": {"seed": 1}}, "extra: expected fields without an option of their own, got seed"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        made_chat(**{"base_url": "http://localhost/v1", **options})
    assert "secret" not in str(caught.value)


def test_a_client_may_be_asked_without_the_refiner(endpoint: Endpoint) -> None:
    messages = [{"role": "user", "content": "a cat"}]
    assert ChatClient(endpoint.url + "/").answer({"model": "tiny", "messages": messages}) == "A CAT"
