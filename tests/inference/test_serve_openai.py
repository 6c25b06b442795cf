"""The routes in OpenAI's format, asked by OpenAI's own client and, where that hides something, as plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

from prip.control.negative import negative_prompt
from prip.errors import InputError
from prip.inference.server.application import OPEN_FILES, make_application
from prip.inference.server.engine import Engine
from prip.inference.server.metrics import Metrics
from prip.inference.server.openai_routes import openai_error
from prip.inference.server.settings import ServerSettings
from prip.refiner import Refiner

KEY = "0123456789abcdef"
LONG = "a very long prompt about many things " * 12
SITE = "https://studio.example"


@pytest.fixture(scope="module")
def refiner(tiny_checkpoint: Path) -> Refiner:
    return Refiner.from_pretrained(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def engine(refiner: Refiner) -> Iterator[Engine]:
    engine = Engine(refiner, "tiny", ServerSettings(), Metrics())
    yield engine
    engine.close()


def http_of(engine: Engine, key: str | None = None, **settings: Any) -> TestClient:
    application = make_application(engine, ServerSettings(**settings), Metrics(), "127.0.0.1", key=key)
    return TestClient(application, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


def client_of(http: TestClient, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key=key, http_client=http, max_retries=0)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def http(engine: Engine) -> TestClient:
    return http_of(engine)


@pytest.fixture(scope="module")
def client(http: TestClient) -> openai.OpenAI:
    return client_of(http)


def user(text: Any) -> Any:
    return {"role": "user", "content": text}


def test_a_chat_answers_the_refined_prompt(client: openai.OpenAI, refiner: Refiner) -> None:
    answer = client.chat.completions.create(model="tiny", messages=[user("a cat")])
    (choice,) = answer.choices
    assert choice.message.content == refiner.refine("a cat") and choice.message.role == "assistant"
    assert (answer.object, answer.model, choice.finish_reason) == ("chat.completion", "tiny", "stop")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_negative_prompt_comes_when_asked_for(client: openai.OpenAI, http: TestClient, stream: bool) -> None:
    extra = {"with_negative": True}
    chat = client.chat.completions.create(model="tiny", messages=[user("a cat, no hats")], extra_body=extra)
    assert chat.choices[0].negative_prompt == negative_prompt(chat.choices[0].message.content)  # type: ignore
    completion = client.completions.create(model="tiny", prompt=["a cat", "no hats"], n=2, extra_body=extra)
    assert [choice.negative_prompt[:5] == "hats," for choice in completion.choices] == [False, False, True, True]  # type: ignore
    body: Any = {"model": "tiny", "stream": stream, **extra}
    for path, asked in (("completions", {"prompt": "no hats"}), ("chat/completions", {"messages": [user("no hats")]})):
        assert '"negative_prompt":' in http.post(f"/v1/{path}", json={**body, **asked}).text.replace('": "', '":"')


def test_the_last_message_of_the_user_is_the_prompt(client: openai.OpenAI, refiner: Refiner) -> None:
    talk: Any = [
        {"role": "system", "content": "You improve prompts."},
        user("a dog"),
        {"role": "assistant", "content": "a dog, night", "refusal": None},
        {**user([{"type": "text", "text": "a cat"}, {"type": "text", "text": "in a boat"}]), "name": "me"},
        {"role": "assistant", "content": None, "tool_calls": []},
    ]
    options: Any = {"n": 2, "seed": 3, "temperature": 0.8, "max_completion_tokens": 12}
    answer = client.chat.completions.create(model="tiny", messages=talk, **options)
    texts = refiner.refine("a cat in a boat", num_alternatives=2, seed=3, temperature=0.8, max_new_tokens=12)
    assert [choice.message.content for choice in answer.choices] == texts
    without = client.chat.completions.create(model="tiny", messages=[user("a cat")], max_tokens=3)
    assert without.choices[0].message.content == refiner.refine("a cat", max_new_tokens=3)


def test_streams_hold_the_same_as_whole_answers(client: openai.OpenAI) -> None:
    chat: Any = {"model": "tiny", "messages": [user("a cat")], "n": 2}
    whole = client.chat.completions.create(**chat)
    chunks = list(client.chat.completions.create(**chat, stream=True, stream_options={"include_usage": True}))
    texts = {0: "", 1: ""}
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]
    assert chunks[-1].usage == whole.usage and chunks[-1].choices == []
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, "stop"] * 2
    assert {(chunk.id, chunk.object) for chunk in chunks} == {(chunks[0].id, "chat.completion.chunk")}
    completion: Any = {"model": "tiny", "prompt": ["a cat", LONG]}
    pieces = list(client.completions.create(**completion, stream=True))
    given = client.completions.create(**completion)
    by_index = {0: "", 1: ""}
    for piece in pieces:
        by_index[piece.choices[0].index] += piece.choices[0].text
    assert list(by_index.values()) == [choice.text for choice in given.choices]
    assert [piece.choices[0].finish_reason for piece in pieces] == [None, "stop", None, "length"]


def test_a_stream_ends_as_clients_expect(http: TestClient) -> None:
    answer = http.post("/v1/completions", json={"model": "tiny", "prompt": LONG, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream") and answer.text.endswith("data: [DONE]\n\n")
    first = json.loads(answer.text.split("\n\n")[0].removeprefix("data: "))
    assert len(first["warnings"]) == 1


def test_what_is_added_ends_before_a_stop_text(client: openai.OpenAI, refiner: Refiner) -> None:
    prompt = "a cat, a dog"
    added = refiner.refine(prompt).removeprefix(prompt)
    stop = added[-4:]
    kept = added[: added.index(stop)]
    for stops in (stop, ["no such words", stop]):
        answer = client.completions.create(model="tiny", prompt=prompt, stop=stops)
        assert answer.choices[0].text == kept != "" and answer.choices[0].finish_reason == "stop"
        chat = client.chat.completions.create(model="tiny", messages=[user(prompt)], stop=stops)
        assert chat.choices[0].message.content == prompt + kept
    at_once = client.chat.completions.create(model="tiny", messages=[user(prompt)], stop=",")
    assert at_once.choices[0].message.content == prompt, "the user's own words are not cut"
    assert at_once.usage is not None and at_once.usage.completion_tokens == 0


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    (card,) = client.models.list().data
    assert client.models.retrieve("tiny") == card and card.id == "tiny"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("someone/other")
    assert caught.value.code == "model_not_found"


def test_errors_have_the_shape_that_the_client_reads(client: openai.OpenAI, http: TestClient, engine: Engine) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-4", prompt="a cat")
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        client.chat.completions.create(model="tiny", messages=[user("a cat")], temperature=-1)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    assert isinstance(wrong.value.body, dict) and wrong.value.body["message"].startswith("temperature: expected")
    with pytest.raises(openai.UnprocessableEntityError) as unknown:
        client.chat.completions.create(model="tiny", messages=[user("a cat")], extra_body={"temprature": 1})
    assert "temprature is not a field of this request; did you mean temperature?" in str(unknown.value)
    with pytest.raises(openai.UnprocessableEntityError, match="at least one message with the role user"):
        client.chat.completions.create(model="tiny", messages=[{"role": "system", "content": "a cat"}])
    locked = http_of(engine, key=KEY)
    with pytest.raises(openai.AuthenticationError) as refused:
        client_of(locked, "wrong").models.list()
    assert refused.value.code == "invalid_api_key" and refused.value.response.headers["www-authenticate"]
    assert client_of(locked, KEY).models.list().data
    assert http.post("/v1/completions", content=b"{").json()["error"]["type"] == "invalid_request_error"
    large = http_of(engine, max_body_bytes=1024).post("/v1/chat/completions", content=b" " * 2000)
    assert large.status_code == 413 and "at most 1,024 bytes" in large.json()["error"]["message"]
    assert http.post("/v1/refine", json={"promt": "a cat"}).json() == {
        "detail": "promt is not a field of this request; did you mean prompt?"
    }


def test_bodies_that_are_no_error_of_the_server_stay_as_they_are() -> None:
    assert openai_error(499, b"") == b"" and openai_error(500, b"[1]") == b"[1]"
    assert json.loads(openai_error(503, b'{"detail": "busy"}'))["error"]["type"] == "overloaded_error"


def test_the_root_leads_to_the_routes(http: TestClient, engine: Engine) -> None:
    for server in (http, http_of(engine, key=KEY)):
        page = server.get("/")
        assert page.status_code == 200 and page.url.path == "/docs" and "swagger" in page.text
    behind = http_of(engine, root_path="/prip")
    assert behind.get("/", follow_redirects=False).headers["location"] == "/prip/docs"
    assert behind.get("/openapi.json").json()["servers"] == [{"url": "/prip"}]
    assert "/prip/openapi.json" in behind.get("/docs").text
    for file in OPEN_FILES:
        assert f"/prip{file}" in behind.get("/docs").text or file.endswith("png")
        assert behind.get(file).status_code == 200, file
    assert behind.post("/v1/refine", json={"prompt": "a cat"}).status_code == 200


def test_pages_of_allowed_sites_may_ask(engine: Engine, http: TestClient) -> None:
    body, origin = {"prompt": "a cat"}, {"Origin": SITE, "Sec-Fetch-Site": "cross-site"}
    preflight = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert http.post("/v1/refine", json=body, headers=origin).status_code == 403
    assert http.options("/v1/refine", headers=preflight).status_code == 403
    for sites in ([SITE], ["*"]):
        allowed = http_of(engine, key=KEY, allow_origins=sites)
        names = "authorization, content-type, x-stainless-os, x-stainless-retry-count"
        preflight["Access-Control-Request-Headers"] = names
        asked = allowed.options("/v1/refine", headers=preflight)
        assert asked.status_code == 200 and "authorization" in asked.headers["access-control-allow-headers"].lower()
        answer = allowed.post("/v1/refine", json=body, headers={**origin, "Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] in (SITE, "*")
        unkeyed = allowed.post("/v1/completions", json=body, headers=origin)
        assert unkeyed.status_code == 401 and unkeyed.headers["access-control-allow-origin"], "a page can read it"
    one = http_of(engine, allow_origins=[SITE])
    other = one.post("/v1/refine", json=body, headers={"Origin": "https://other.example"})
    assert other.status_code == 403 and "access-control-allow-origin" not in other.headers
    rebound = one.post("/v1/refine", json=body, headers={**origin, "Host": "evil.example"})
    assert rebound.status_code == 403


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allow_origins": ["https://studio.example/page"]}, "allow_origin: expected"),
        ({"allow_origins": ["studio.example"]}, "allow_origin: expected"),
        ({"root_path": "prip"}, "root_path: expected"),
        ({"root_path": "/prip/"}, "root_path: expected"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ServerSettings(**settings)


def test_the_document_groups_and_names_its_routes(http: TestClient) -> None:
    document = http.get("/openapi.json").json()
    operations = {path: operation for path, of_path in document["paths"].items() for operation in of_path.values()}
    assert all(operation["tags"] and operation["summary"] for operation in operations.values())
    assert operations["/v1/chat/completions"]["tags"] == ["OpenAI"]
    schema = operations["/v1/models"]["responses"]["403"]["content"]["application/json"]["schema"]["$ref"]
    assert schema.endswith("/OpenAIProblem")
