"""The routes of `prip serve`, in this process: answers, errors, the key, foreign names, OpenAPI, metrics."""

from __future__ import annotations

import base64
import io
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from tiny_parts import options_with

from prip.control.negative import negative_prompt
from prip.errors import InputError
from prip.inference.checkpoint_parts import load_rewards
from prip.inference.comparison.workbench import Workbench
from prip.inference.network.request_guard import API_HEADERS
from prip.inference.server.access import LEAST_CHARACTERS, read_key
from prip.inference.server.application import OPEN_FILES, make_application
from prip.inference.server.engine import Engine
from prip.inference.server.metrics import Metrics
from prip.inference.server.settings import MAX_IMAGES, MAX_PROMPTS, ServerSettings
from prip.miniature.renderer import Renderer
from prip.options import RefineOptions
from prip.protocols import Images
from prip.refiner import Refiner
from prip.text.prompts import MAX_CHARACTERS, modifiers_added, own_words

KEY = "0123456789abcdef"
LONG = "a very long prompt about many things " * 12


@pytest.fixture(scope="module")
def refiner(tiny_checkpoint: Path) -> Refiner:
    return Refiner.from_pretrained(tiny_checkpoint, device="cpu")


def client_of(engine: Engine, metrics: Metrics, key: str | None = None, **settings: Any) -> TestClient:
    application = make_application(engine, ServerSettings(**settings), metrics, "127.0.0.1", key=key)
    return TestClient(application, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture(scope="module")
def engine(refiner: Refiner, whole_checkpoint: Path, metrics: Metrics) -> Iterator[Engine]:
    bench = Workbench.around(refiner, whole_checkpoint, "renderer", "cpu")
    engine = Engine(refiner, "tiny", ServerSettings(), metrics, bench)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def client(engine: Engine, metrics: Metrics) -> TestClient:
    return client_of(engine, metrics)


def test_negative_prompts_come_when_asked_for(client: TestClient) -> None:
    body = {"prompt": ["a cat", "no hats, a dog"], "num_alternatives": 2, "with_negative": True}
    for result in client.post("/v1/refine", json=body).json()["results"]:
        assert result["negative_prompts"] == [negative_prompt(text) for text in result["refined_prompts"]]
    assert result["negative_prompts"][0].startswith("hats, ")


def test_refine_answers_what_refine_gives(client: TestClient, refiner: Refiner) -> None:
    one = client.post("/v1/refine", json={"prompt": "a cat"})
    text = refiner.refine("a cat")
    added = modifiers_added("a cat", text)
    wanted = {"user_prompt": "a cat", "refined_prompts": [text], "added": [added], "negative_prompts": None}
    assert one.status_code == 200 and one.json() == {"model": "tiny", "results": [wanted], "warnings": []}
    options: dict[str, Any] = {"num_alternatives": 3, "seed": 5, "temperature": 0.7, "max_new_tokens": 9}
    options["token_budget"] = 40
    options |= {"banned_terms": ["hour", "Golden"], "styles": ["watercolor"], "strength": 0.5, "no_artists": True}
    options |= {"keep_attributes": False}
    several = client.post("/v1/refine", json={"prompt": ["a cat", "Ünïcödé 猫 🐈", "a cat"], **options}).json()
    texts = refiner.refine(["a cat", "Ünïcödé 猫 🐈", "a cat"], **options)
    assert [one["refined_prompts"] for one in several["results"]] == texts
    assert [one["user_prompt"] for one in several["results"]] == ["a cat", "Ünïcödé 猫 🐈", "a cat"]


def test_every_option_of_refine_is_offered_with_its_default(client: TestClient) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    offered = {name: one.get("default") for name, one in schemas["RefineRequest"]["properties"].items()}
    assert offered.pop("prompt") is None and offered.pop("with_negative") is False
    wanted = vars(RefineOptions())
    wanted.pop("batch_size")
    assert offered == {**wanted, "banned_terms": [], "styles": []}


def test_warnings_come_back_in_the_answer_and_nowhere_else(client: TestClient, refiner: Refiner) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = client.post("/v1/refine", json={"prompt": [LONG, "a cat"]}).json()
    assert not caught
    assert answer["results"][0]["refined_prompts"] == [LONG]
    with pytest.warns(UserWarning) as wanted:
        refiner.refine([LONG, "a cat"])
    assert answer["warnings"] == [str(wanted[0].message)] and "1 prompt was returned unchanged" in answer["warnings"][0]
    short = {"prompt": "a cat", "num_alternatives": 3, "temperature": 1e-9, "token_budget": 6}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        texts = refiner.refine(**short)
    answer = client.post("/v1/refine", json=short).json()
    assert answer["results"][0]["refined_prompts"] == texts
    assert answer["warnings"] == [str(one.message) for one in told]


def test_completions_hold_what_was_added(client: TestClient, refiner: Refiner) -> None:
    answer = client.post("/v1/completions", json={"model": "tiny", "prompt": ["a cat.", "a dog"], "n": 2, "seed": 3})
    assert answer.status_code == 200
    texts = refiner.refine(["a cat.", "a dog"], num_alternatives=2, seed=3)
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    added = [choice["text"] for choice in choices]
    assert [own_words("a cat.") + text for text in added[:2]] + ["a dog" + text for text in added[2:]] == sum(texts, [])
    assert {choice["finish_reason"] for choice in choices} == {"stop"}
    full = client.post("/v1/completions", json={"model": "tiny", "prompt": LONG}).json()
    assert (full["choices"][0]["text"], full["choices"][0]["finish_reason"]) == ("", "length") and full["warnings"]
    limited = {"model": "tiny", "prompt": "a cat", "max_tokens": 7, "temperature": 0.9, "seed": 2}
    for top_p in (None, 0.9, 1):
        wanted = refiner.refine("a cat", max_new_tokens=7, temperature=0.9, seed=2, top_p=top_p or 0.9)
        answer = client.post("/v1/completions", json={**limited, "top_p": top_p}).json()
        assert "a cat" + answer["choices"][0]["text"] == wanted
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    unknown = client.post("/v1/completions", json={"model": "gpt", "prompt": "a cat"})
    assert unknown.status_code == 404 and unknown.json()["error"]["message"].startswith("model: expected 'tiny'")


NEUTRAL: dict[str, list[Any]] = {
    "best_of": [1, None],
    "echo": [False, None],
    "frequency_penalty": [0, 0.0, None],
    "logit_bias": [{}, None],
    "logprobs": [None],
    "n": [1, None],
    "presence_penalty": [0, -0.0, None],
    "stop": [None, []],
    "stream": [False, None],
    "stream_options": [None],
    "suffix": ["", None],
    "top_p": [1, 1.0, None],
    "user": ["me", None],
}


def test_what_openais_clients_send_may_be_there_as_long_as_it_changes_nothing(client: TestClient) -> None:
    body = {"model": "tiny", "prompt": "a cat"}
    plain = client.post("/v1/completions", json=body).json()["choices"]
    for name, values in NEUTRAL.items():
        for value in values:
            answer = client.post("/v1/completions", json={**body, name: value})
            assert answer.status_code == 200 and answer.json()["choices"] == plain, (name, value)
    every = client.post("/v1/completions", json={**body, **{name: values[0] for name, values in NEUTRAL.items()}})
    assert every.status_code == 200
    others = {
        "best_of": (2, True),
        "echo": (True, 0),
        "frequency_penalty": (0.5, False),
        "logit_bias": ({"50256": -100},),
        "logprobs": (0,),
        "presence_penalty": (-1, "0"),
        "stop": (["."] * 5, ""),
        "stream": (0,),
        "suffix": (".",),
        "top_p": (0, True),
        "user": (1,),
        "best": (1,),
    }
    for name, values in others.items():
        for value in values:
            answer = client.post("/v1/completions", json={**body, name: value})
            told = answer.json()["error"]
            assert answer.status_code == 422 and told["message"].startswith(name) and told["param"] == name
    told = client.post("/v1/completions", json={**body, "best_of": 2}).json()["error"]["message"]
    assert told == "best_of: expected 1 or null, got 2"


def test_usage_counts_the_decoders_tokens(client: TestClient, refiner: Refiner) -> None:
    prompts = ["a cat.", "a (cat:1.2)", LONG]
    answer = client.post("/v1/completions", json={"model": "tiny", "prompt": prompts, "n": 2}).json()
    texts = refiner.refine(prompts[:2], num_alternatives=2)
    tokenizer = refiner.processor.decoder_tokenizer
    read = [len(tokenizer.encode(text)) for text in ("a cat,", "a cat,", own_words(LONG) + ",")]
    added = [
        len(tokenizer.encode(text.removeprefix(own_words(prompt) + ",")))
        for prompt, own in zip(prompts, texts, strict=False)
        for text in own
    ]
    assert answer["usage"] == {
        "prompt_tokens": sum(read),
        "completion_tokens": sum(added),
        "total_tokens": sum(read) + sum(added),
    }
    one = client.post("/v1/completions", json={"model": "tiny", "prompt": "a cat", "max_tokens": 7}).json()
    [made] = refiner.sampler.sample(
        ["a cat"],
        [(0, 0)],
        options_with(max_new_tokens=7),
    )
    ended = made[-1] == tokenizer.eos_token_id
    assert one["usage"]["completion_tokens"] == len(made) - ended, "what the decoder made, but for its end token"


def test_images_are_plain_and_refined_from_the_same_seeds(
    client: TestClient, refiner: Refiner, whole_checkpoint: Path
) -> None:
    answer = client.post("/v1/images", json={"prompt": ["a cat", "a boat"], "images_per_prompt": 2, "seed": 7}).json()
    assert answer["generator"] == "renderer"
    rewards = load_rewards(whole_checkpoint / "rewards", "cpu")
    for result in answer["results"]:
        prompt = result["user_prompt"]
        refined = refiner.counted_by(Renderer()).refine(prompt, seed=7)
        assert (result["refined_prompt"], result["seeds"]) == (refined, [7, 8])
        for kind, text in (("plain", prompt), ("refined", refined)):
            files = [io.BytesIO(base64.b64decode(one)) for one in result[kind]["images"]]
            pixels = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in files])
            wanted = Renderer()([text] * 2, [7, 8])
            assert torch.equal(pixels, wanted)
            scores = {reward.name: reward([prompt] * 2, wanted).tolist() for reward in rewards}
            assert result[kind]["scores"] == {name: pytest.approx(values, rel=1e-4) for name, values in scores.items()}


def test_what_refinement_left_as_it_was_is_drawn_once(client: TestClient, metrics: Metrics) -> None:
    def drawn() -> float | None:
        return metrics.registry.get_sample_value("prip_draw_batch_size_sum")

    before = drawn() or 0
    body = {"prompt": ["a cat", "a dog", "a cat"], "strength": 0, "images_per_prompt": 2}
    results = client.post("/v1/images", json=body).json()["results"]
    assert drawn() == before + 4 and all(result["plain"] == result["refined"] for result in results)
    assert results[0] == results[2] and len({*results[0]["plain"]["images"], *results[1]["plain"]["images"]}) == 4


class SlowRenderer(Renderer):
    """Takes its time for each image, as a generator on a CPU does."""

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        time.sleep(0.2 * len(prompts))
        return super().__call__(prompts, seeds)


def test_a_slow_generator_draws_for_those_whom_it_can_answer(refiner: Refiner) -> None:
    metrics, settings = Metrics(), ServerSettings(timeout_s=3)
    renderer = SlowRenderer()
    engine = Engine(refiner, "tiny", settings, metrics, Workbench(refiner.counted_by(renderer), renderer, ()))
    client = client_of(engine, metrics, timeout_s=3)
    ok = 0
    for seed in range(2):
        with ThreadPoolExecutor(9) as clients:
            bodies = [{"prompt": f"a cat and {number} dogs", "seed": seed} for number in range(9)]
            answers = list(clients.map(lambda body: client.post("/v1/images", json=body), bodies))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 2, statuses
        refusals = [answer for answer in answers if answer.status_code == 503]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refusals)
        assert all("are left; try again in" in answer.json()["detail"] for answer in refusals)
        ok += statuses.count(200)
    large = client.post("/v1/images", json={"prompt": "a cat", "images_per_prompt": 8})
    assert large.status_code == 503 and "would take" in large.json()["detail"], "16 images, with nobody before it"
    engine.close()
    assert metrics.registry.get_sample_value("prip_draw_batch_size_sum") == 2 * ok, "nothing was drawn for nobody"
    assert metrics.registry.get_sample_value("prip_refused_total") == 2 * 9 - ok + 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_told_by_healthz(refiner: Refiner) -> None:
    class Dying(Engine):
        def _refine(self, group: Any, jobs: Any) -> Any:
            raise SystemExit

    metrics = Metrics()
    engine = Dying(refiner, "tiny", ServerSettings(), metrics)
    client = client_of(engine, metrics)
    assert client.get("/healthz").status_code == 200
    assert client.post("/v1/refine", json={"prompt": "a"}).status_code == 500
    assert client.get("/healthz").status_code == 503
    assert client.post("/v1/refine", json={"prompt": "a"}).status_code == 500
    engine.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_wait_ms", 1e14), ("max_wait_ms", 30_000), ("timeout_s", 1e14), ("timeout_s", float("nan"))],
)
def test_no_setting_waits_for_ever(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name}: expected "):
        ServerSettings(**{name: value})


def test_without_a_generator_there_is_no_route_for_images(refiner: Refiner) -> None:
    metrics = Metrics()
    engine = Engine(refiner, "tiny", ServerSettings(), metrics)
    client = client_of(engine, metrics)
    assert client.post("/v1/images", json={"prompt": "a cat"}).status_code == 404
    assert "/v1/images" not in client.get("/openapi.json").json()["paths"]
    assert client.get("/healthz").json()["generator"] is None
    engine.close()


BAD: list[tuple[Any, str]] = [
    ({}, "prompt is missing"),
    ({"prompt": ""}, "prompt: String should have at least 1 character"),
    ({"prompt": " ., "}, "prompt: expected at least one word"),
    ({"prompt": ["a cat", "a\fcat"]}, "prompt[1]: expected no control characters, got U+000C at character 2"),
    ({"prompt": []}, "prompt: List should have at least 1 item"),
    ({"prompt": ["a"] * (MAX_PROMPTS + 1)}, f"prompt: List should have at most {MAX_PROMPTS} items"),
    ({"prompt": "a" * (MAX_CHARACTERS + 1)}, f"prompt: String should have at most {MAX_CHARACTERS} characters"),
    ({"prompt": 7}, "prompt: expected a valid string, got 7"),
    ({"prompt": ["a", None]}, "prompt.1: expected a valid string, got None"),
    ({"prompt": "a", "seed": "1"}, "seed: expected a valid integer, got '1'"),
    ({"prompt": "a", "seed": 1.5}, "seed: expected a valid integer"),
    ({"prompt": "a", "seed": True}, "seed: expected a valid integer, got True"),
    ({"prompt": "a", "temperature": -1}, "temperature: expected a value greater than or equal to 0, got -1"),
    ({"prompt": "a", "max_new_tokens": 0}, "max_new_tokens: expected a value greater than or equal to 1, got 0"),
    ({"prompt": "a", "num_alternatives": 99}, "num_alternatives: expected a value less than or equal to 8, got 99"),
    ({"prompt": "a", "banned_terms": "hour"}, "banned_terms: expected a valid list, got 'hour'"),
    ({"prompt": "a", "banned_terms": [" "]}, "banned_terms: expected strings with at least one character"),
    ({"prompt": "a", "styles": ["a\vb"]}, "styles[0]: expected no control characters"),
    ({"prompt": "a", "strength": 1.1}, "strength: expected a value less than or equal to 1, got 1.1"),
    ({"prompt": "a", "no_artists": 1}, "no_artists: expected a valid boolean, got 1"),
    ({"prompt": "a", "sed": 1}, "sed is not a field of this request"),
    ([], "body: expected a JSON object"),
    (None, "body is missing"),
]


@pytest.mark.parametrize(("body", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_told_in_one_line(client: TestClient, body: Any, message: str) -> None:
    answer = client.post("/v1/refine", json=body)
    detail = answer.json()["detail"]
    assert answer.status_code == 422 and message in detail and "\n" not in detail and len(detail) < 600


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b'{"prompt": "a", "temperature": NaN}', 422, "temperature: expected a finite number, got nan"),
        (b'{"prompt": "a", "temperature": 1e999}', 422, "temperature: expected a finite number"),
        (b'{"prompt": "a \\ud800 cat"}', 422, "prompt: expected a valid string"),
        (b'{"prompt": "a", "\\ud800": 1}', 422, "\\ud800 is not a field"),
        (b'{"prompt": "a\\u0000"}', 422, "U+0000"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", 400, "the body"),
        (b'{"prompt": "\xff\xfe"}', 400, "the body"),
        (b"[" * 100_000, 400, "the body"),
        (b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}", 422, "prompt.0: expected a valid string, got a list"),
        (b'{"prompt"', 400, "body: not valid JSON"),
        (b"", 422, "body is missing"),
        (b'{"prompt": "' + b"a" * (1 << 20) + b'"}', 413, "request body: expected at most 1,048,576 bytes"),
    ],
)
def test_hostile_bodies_are_told_apart_from_faults(
    client: TestClient, content: bytes, status: int, message: str
) -> None:
    answer = client.post("/v1/refine", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, message in answer.json()["detail"]) == (status, True), answer.text


def test_json_under_another_name_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/refine", content=b'{"prompt": "a"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 422, "what a page of another site may send unasked"
    assert answer.json()["detail"].endswith("a JSON object, sent with the header Content-Type: application/json")


def test_foreign_names_and_pages_are_refused(client: TestClient, engine: Engine, metrics: Metrics) -> None:
    for headers in (
        {"host": "evil.example"},
        {"host": "refiner.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert client.post("/v1/refine", json={"prompt": "a"}, headers=headers).status_code == 403, headers
    assert client.get("/healthz", headers={"host": "localhost:9999"}).status_code == 200, "through a tunnel"
    named = client_of(engine, metrics, host_names=["Refiner.example"])
    for host in ("refiner.example", "refiner.example:8443", "127.0.0.1:8000"):
        assert named.get("/healthz", headers={"host": host, "origin": f"https://{host}"}).status_code == 200
    assert named.get("/healthz", headers={"host": "evil.example"}).status_code == 403


def test_every_refusal_has_the_servers_own_headers(engine: Engine, metrics: Metrics) -> None:
    locked, key = client_of(engine, metrics, KEY, max_body_bytes=1024), {"authorization": f"Bearer {KEY}"}
    answers = [
        locked.get("/healthz"),
        locked.get("/v1/models"),
        locked.get("/v1/models", headers={**key, "host": "evil.example"}),
        locked.get("/nowhere", headers=key),
        locked.post("/v1/refine", content=b"a" * 2000, headers=key),
        locked.post("/v1/refine", json={}, headers=key),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 403, 404, 413, 422]
    for answer in answers:
        assert [answer.headers.get_list(name) for name in API_HEADERS] == [[value] for value in API_HEADERS.values()]


def test_a_key_is_asked_for_before_the_body_is_read(engine: Engine, metrics: Metrics) -> None:
    locked = client_of(engine, metrics, KEY)
    for given in (None, KEY, f"Basic {KEY}", f"Bearer {KEY}0", f"Bearer {KEY[:-1]}", "Bearer ", "Bearer ümläut"):
        headers = {} if given is None else {"authorization": given.encode()}
        answer = locked.post("/v1/refine", content=b"no JSON", headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == 'Bearer realm="prip"', given
        assert KEY not in answer.text
    assert locked.get("/metrics").status_code == 401 and locked.get("/v1/models").status_code == 401
    assert locked.get("/healthz").status_code == 200 and locked.get("/docs").status_code == 200
    assert [locked.get(path).status_code for path in OPEN_FILES] == [200, 200, 200]
    assert locked.get("/docs-files/redoc.standalone.js").status_code == 401
    for scheme in ("Bearer", "bearer"):
        answer = locked.post("/v1/refine", json={"prompt": "a"}, headers={"authorization": f"{scheme} {KEY}"})
        assert answer.status_code == 200
    document = locked.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}
    assert document["paths"]["/v1/refine"]["post"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\nsecond line\n")
    assert read_key(None, {}) is None
    assert read_key(file, {"PRIP_API_KEY": "another key is here"}) == KEY
    assert read_key(None, {"PRIP_API_KEY": KEY}) == KEY
    file.write_bytes(b"\xef\xbb\xbf" + KEY.encode() + b"\rsecond line")
    assert read_key(file, {}) == KEY
    for text in ("", "short", "with a blank in it", "ümläut" * 4):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=f"at least {LEAST_CHARACTERS} visible"):
            read_key(file, {})
    with pytest.raises(InputError, match="PRIP_API_KEY: expected a key"):
        read_key(None, {"PRIP_API_KEY": ""})
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_key(tmp_path / "nowhere", {})


def test_openapi_tells_bounds_examples_and_every_error(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    string, several = schemas["RefineRequest"]["properties"]["prompt"]["oneOf"]
    assert (string["minLength"], string["maxLength"]) == (1, MAX_CHARACTERS)
    assert (several["minItems"], several["maxItems"]) == (1, MAX_PROMPTS)
    assert schemas["ImagesRequest"]["properties"]["prompt"]["oneOf"][1]["maxItems"] == MAX_IMAGES
    assert schemas["RefineRequest"]["properties"]["max_new_tokens"]["minimum"] == 1
    for path, errors in (
        ("/v1/refine", "400 403 408 413 422 500 503 504"),
        ("/v1/images", "400 403 408 413 422 500 503 504"),
        ("/v1/completions", "400 403 404 408 413 422 500 503 504"),
    ):
        responses = document["paths"][path]["post"]["responses"]
        assert sorted(responses) == ["200", *errors.split()]
        assert responses["503"]["headers"]["Retry-After"]["required"]
        sent = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        for example in schemas[sent.rsplit("/", 1)[1]]["examples"]:
            mine = {**example, "model": "tiny"} if "model" in example else example
            assert client.post(path, json=mine).status_code == 200, example


def test_metrics_count_requests_prompts_and_batches(client: TestClient) -> None:
    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} ([\d.e+-]+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    names = {
        'prip_requests_total{route="/v1/refine",status="200"}': 1,
        'prip_requests_total{route="/v1/refine",status="422"}': 1,
        'prip_requests_total{route="other",status="404"}': 1,
        'prip_prompts_total{route="/v1/refine"}': 3,
        "prip_refine_batch_size_sum": 3,
        "prip_refine_batch_size_count": 1,
        'prip_request_seconds_count{route="/v1/refine"}': 2,
    }
    before = {name: value(name) for name in names}
    client.post("/v1/refine", json={"prompt": ["a cat", "a dog", "a boat"]})
    client.post("/v1/refine", json={"prompt": 1})
    client.get("/no/such/route")
    assert {name: value(name) - before[name] for name in names} == names
    assert value('prip_queue_depth{queue="refine"}') == 0 and value("process_resident_memory_bytes") > 1e6
    assert value("prip_requests_in_progress") == 1, "this one"


def test_a_fault_is_500_and_says_no_more(refiner: Refiner) -> None:
    class Broken(Engine):
        def _refine(self, group: Any, jobs: Any) -> Any:
            raise ZeroDivisionError("a secret")

    metrics = Metrics()
    engine = Broken(refiner, "tiny", ServerSettings(), metrics)
    answer = client_of(engine, metrics).post("/v1/refine", json={"prompt": "a"})
    engine.close()
    assert answer.status_code == 500 and answer.json() == {"detail": "internal server error; see the server's log"}
