"""The routes of `prip serve`, and what each error becomes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from prip.errors import InputError
from prip.options import RefineOptions
from prip.refiner import Refined
from prip.text.prompts import check_user_prompts, modifiers_added, own_words

from ..network.request_guard import API_HEADERS, Guard
from .access import KeyCheck
from .batching import Refused
from .engine import Drawing, Engine
from .metrics import Counted, Metrics
from .schemas import (
    Choice,
    CompletionsAnswer,
    CompletionsRequest,
    Drawings,
    DrawnPrompt,
    Health,
    ImagesAnswer,
    ImagesRequest,
    ModelCard,
    ModelsAnswer,
    Problem,
    RefineAnswer,
    RefinedPrompt,
    RefineRequest,
    Usage,
    prompt_list,
)
from .settings import ServerSettings
from .waiting import ClientGone, TimedOut, answer_of

OPEN_PATHS = ("/healthz", "/docs", "/openapi.json")
"""What is answered without the key."""
DOCS_FILES = "/docs-files"
OPEN_FILES = tuple(f"{DOCS_FILES}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"))
"""What the page /docs is made of, without the key as well; it comes from here, so that no other site is asked."""
MALFORMED = {
    "missing": "{} is missing",
    "extra_forbidden": "{} is no field of this request",
    "model_attributes_type": "{} must be a JSON object, sent with the header Content-Type: application/json",
}
"""In words, what pydantic finds wrong with the shape of a request."""

CLIENT_GONE = 499
"""The status that the metrics show of a request whose client went away."""

PROBLEMS = {
    400: "The request cannot be read as HTTP, or its body as JSON",
    401: "The server has a key, and the request does not",
    403: "The request was made under a foreign name, or by a page of another site",
    404: "No such model",
    408: "The body did not come in time",
    413: "The body is too large",
    422: "An argument cannot be used; the detail says which, what was wanted and what came",
    500: "A fault of the server",
    503: "The queue is full, or the time too short; Retry-After says in how many seconds to try again",
    504: "There was no answer in time",
}


def make_application(
    engine: Engine, settings: ServerSettings, metrics: Metrics, host: str, key: str | None = None
) -> Counted:
    """Return the ASGI application. host: where it listens. key: what requests must bring, None for nothing."""
    api = FastAPIOffline(
        title="PRIP",
        description="Turns a plain prompt into the prompt that a text-to-image model wants.",
        version=version("prip"),
        redoc_url=None,
        static_url=DOCS_FILES,
    )
    _add_errors(api, metrics)
    _add_refine(api, engine, settings, metrics, locked=key is not None)
    if engine.generator is not None:
        _add_images(api, engine, settings, metrics, locked=key is not None)
    _add_about(api, engine, metrics, locked=key is not None)
    if key is not None:
        _declare_key(api)
    guarded: Any = Guard(
        api,
        host,
        None,
        settings.max_body_bytes,
        settings.client_timeout_s,
        settings.host_names,
        API_HEADERS,
    )
    if key is not None:
        guarded = KeyCheck(guarded, key, [*OPEN_PATHS, *OPEN_FILES])
    return Counted(guarded, metrics, [*OPEN_PATHS, *(path for path in api.openapi()["paths"])])


def _problems(*statuses: int, locked: bool) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's account of the errors of a route, those that any request may have among them."""
    every = {403, 408, 413, 500, *statuses} | ({401} if locked else set())
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": PROBLEMS[status]} for status in sorted(every)
    }
    if 503 in found:
        found[503]["headers"] = {
            "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}, "required": True}
        }
    if 401 in found:
        found[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    return found


def _add_refine(api: FastAPI, engine: Engine, settings: ServerSettings, metrics: Metrics, locked: bool) -> None:
    async def refine(request: Request, prompts: list[str], options: RefineOptions) -> tuple[list[Refined], list[str]]:
        results = await refined(engine, settings, request, prompts, options)
        metrics.prompts.labels(request.scope["path"]).inc(len(prompts))
        return results, engine.shortcomings(prompts, results, options)

    @api.post("/v1/refine", response_model=RefineAnswer, responses=_problems(400, 422, 503, 504, locked=locked))
    async def refine_prompts(sent: RefineRequest, request: Request) -> Response:
        """Refine prompts: each keeps its words and gains what an image model likes to read."""
        prompts = prompt_list(sent.prompt)
        results, warnings = await refine(request, prompts, sent.options(num_alternatives=sent.num_alternatives))
        found = [
            RefinedPrompt(
                user_prompt=prompt,
                refined_prompts=result.texts,
                added=[modifiers_added(prompt, text) for text in result.texts],
            )
            for prompt, result in zip(prompts, results, strict=True)
        ]
        return _json(RefineAnswer(model=engine.model, results=found, warnings=warnings))

    @api.post(
        "/v1/completions", response_model=CompletionsAnswer, responses=_problems(400, 404, 422, 503, 504, locked=locked)
    )
    async def complete(sent: CompletionsRequest, request: Request) -> Response:
        """Refine prompts for clients of OpenAI's completions: a choice's text is what was added behind the user's
        words."""
        if sent.model != engine.model:
            raise HTTPException(404, f"model must be {engine.model!r}, as /v1/models tells; it is {sent.model!a:.100}")
        prompts, options = prompt_list(sent.prompt), sent.options()
        results, warnings = await refine(request, prompts, options)
        choices = [
            Choice(
                text="" if result.unchanged else text[len(own_words(prompt)) :],
                index=number * options.num_alternatives + place,
                finish_reason="length" if result.unchanged else "stop",
            )
            for number, (prompt, result) in enumerate(zip(prompts, results, strict=True))
            for place, text in enumerate(result.texts)
        ]
        read, added = await asyncio.to_thread(engine.count_tokens, prompts, results)
        answer = CompletionsAnswer(
            id=f"cmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=engine.model,
            choices=choices,
            usage=Usage(prompt_tokens=read, completion_tokens=added, total_tokens=read + added),
            warnings=warnings,
        )
        return _json(answer)


def _add_images(api: FastAPI, engine: Engine, settings: ServerSettings, metrics: Metrics, locked: bool) -> None:
    generator = engine.generator
    assert generator is not None

    @api.post("/v1/images", response_model=ImagesAnswer, responses=_problems(400, 422, 503, 504, locked=locked))
    async def draw(sent: ImagesRequest, request: Request) -> Response:
        """Draw prompts plain and refined, from the same seeds; the refined one keeps to what the generator reads."""
        prompts, options = prompt_list(sent.prompt), sent.options()
        deadline = asyncio.get_running_loop().time() + settings.timeout_s
        results = await refined(engine, settings, request, prompts, options, deadline, for_generator=True)
        seeds = [sent.seed + number for number in range(sent.images_per_prompt)]
        pairs = [(prompt, result.texts[0]) for prompt, result in zip(prompts, results, strict=True)]
        wanted = [Drawing(prompt, text, seed) for prompt, own in pairs for text in (prompt, own) for seed in seeds]
        distinct = list(dict.fromkeys(wanted))  # a prompt that gained nothing is drawn once
        future = engine.draw(distinct, deadline - asyncio.get_running_loop().time())
        answer = await answer_of(future, request.receive, deadline, settings.timeout_s)
        drawn = dict(zip(distinct, answer, strict=True))

        def drawings(start: int) -> Drawings:
            own = [drawn[one] for one in wanted[start : start + len(seeds)]]
            scores = {name: [image.scores[name] for image in own] for name in own[0].scores}
            return Drawings(images=[image.png for image in own], scores=scores)

        found = [
            DrawnPrompt(
                user_prompt=prompt,
                refined_prompt=text,
                added=modifiers_added(prompt, text),
                seeds=seeds,
                plain=drawings(2 * number * len(seeds)),
                refined=drawings((2 * number + 1) * len(seeds)),
            )
            for number, (prompt, text) in enumerate(pairs)
        ]
        metrics.prompts.labels(request.scope["path"]).inc(len(prompts))
        warnings = engine.shortcomings(prompts, results, options, for_generator=True)
        return _json(ImagesAnswer(model=engine.model, generator=generator.name, results=found, warnings=warnings))


def _add_about(api: FastAPI, engine: Engine, metrics: Metrics, locked: bool) -> None:
    started = int(time.time())

    @api.get("/v1/models", response_model=ModelsAnswer, responses=_problems(locked=locked))
    async def models() -> Response:
        """Tell the name of the refiner, as OpenAI's clients ask for it."""
        return _json(ModelsAnswer(data=[ModelCard(id=engine.model, created=started)]))

    dead = {"model": Problem, "description": "What refines or draws has failed for good; the server's log says how"}

    @api.get("/healthz", response_model=Health, responses={**_problems(locked=False), 503: dead})
    async def health() -> Response:
        """Tell that the server answers, and what is loaded."""
        if not engine.works:
            return _problem(503, "what refines or draws has failed for good; the server's log says how")
        name = None if engine.generator is None else engine.generator.name
        return _json(Health(model=engine.model, generator=name, version=version("prip")))

    told = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **_problems(locked=locked)}

    @api.get("/metrics", response_class=Response, responses=told)
    async def tell_metrics() -> Response:
        """Tell requests, seconds, prompts, sizes of batches, queues and the process's memory to Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


async def refined(
    engine: Engine,
    settings: ServerSettings,
    request: Request,
    prompts: Sequence[str],
    options: RefineOptions,
    deadline: float | None = None,
    for_generator: bool = False,
) -> list[Refined]:
    """Return what came of the prompts of a request. deadline: on the event loop's clock, by default that of a request
    that came just now. Raises InputError, Refused, TimedOut or ClientGone."""
    check_user_prompts(prompts[0] if len(prompts) == 1 else prompts)
    if deadline is None:
        deadline = asyncio.get_running_loop().time() + settings.timeout_s
    future = engine.refine(prompts, options, for_generator)
    return await answer_of(future, request.receive, deadline, settings.timeout_s)


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(Problem(detail=detail).model_dump(), status, headers)


def _add_errors(api: FastAPI, metrics: Metrics) -> None:
    @api.exception_handler(InputError)
    async def unusable(_request: Request, error: InputError) -> Response:
        return _problem(422, str(error).encode("ascii", "backslashreplace").decode())

    @api.exception_handler(RequestValidationError)
    async def unreadable(_request: Request, error: RequestValidationError) -> Response:
        problems = error.errors()
        if problems[0]["type"] == "json_invalid":
            return _problem(400, f"the body must be JSON: {problems[0]['ctx']['error']}")
        return _problem(422, "; ".join(map(_in_words, problems[:3])))

    @api.exception_handler(Refused)
    async def full(_request: Request, error: Refused) -> Response:
        metrics.refused.inc()
        return _problem(503, str(error), {"retry-after": str(error.retry_after_s)})

    @api.exception_handler(TimedOut)
    async def late(_request: Request, error: TimedOut) -> Response:
        return _problem(504, str(error))

    @api.exception_handler(ClientGone)
    async def gone(_request: Request, _error: ClientGone) -> Response:
        return Response(status_code=CLIENT_GONE)

    @api.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @api.exception_handler(Exception)
    async def fault(_request: Request, _error: Exception) -> Response:
        return _problem(500, "the server failed at this request; its log says how")


def _in_words(problem: Any) -> str:
    """Return one of pydantic's errors as which argument, what was wanted and, where it is short, what came."""
    place = [str(step) for step in problem["loc"][1:] if step not in ("string", "list")]
    name = ".".join(place).encode("ascii", "backslashreplace").decode() or "the body"
    if problem["type"] in MALFORMED:
        return MALFORMED[problem["type"]].format(name)
    came = problem.get("input")
    shown = ascii(came) if isinstance(came, str | int | float | bool | None) else f"a {type(came).__name__}"
    told = problem["msg"].removeprefix("Value error, ")
    return f"{name}: {told}; {shown if len(shown) <= 60 else shown[:57] + '...'} came"


def _declare_key(api: FastAPI) -> None:
    """Tell in OpenAPI that all but OPEN_PATHS wants the key."""
    document = api.openapi()
    document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if path not in OPEN_PATHS:
            for operation in operations.values():
                operation["security"] = [{"key": []}]
