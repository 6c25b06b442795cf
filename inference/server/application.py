"""The routes of `prip serve`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from prip.control.negative import negative_prompt
from prip.options import RefineOptions
from prip.refiner import Refined
from prip.text.prompts import check_user_prompts, modifiers_added

from ..network.request_guard import API_HEADERS, Application, Guard, Message, Receive, Send
from .access import KeyCheck
from .engine import Drawing, Engine, answer_of
from .metrics import Counted, Metrics
from .openai_routes import OpenAIErrors, Refine, add_openai_routes
from .problems import DEAD, OPEN_PATHS, Problems, add_errors, declare_key, described_problems, problem_answer
from .schemas import (
    Drawings,
    DrawnPrompt,
    Health,
    ImagesAnswer,
    ImagesRequest,
    Problem,
    RefineAnswer,
    RefinedPrompt,
    RefineRequest,
    prompt_list,
)
from .settings import ServerSettings

DOCS_FILES = "/docs-files"
OPEN_FILES = tuple(f"{DOCS_FILES}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"))
"""Files of the page /docs, which need no key either. The server has its own copies and contacts no other site."""
_TAG: Any = {"tags": ["PRIP"]}


def make_application(
    engine: Engine, settings: ServerSettings, metrics: Metrics, host: str, *, key: str | None = None
) -> Counted:
    """Return the ASGI application.

    Args:
        host: Address that the server listens on.
        key: API key that requests must send; None for no key.
    """
    api = FastAPIOffline(
        title="PRIP",
        description="Turns a plain prompt into the prompt that a text-to-image model works best with.",
        version=version("prip"),
        redoc_url=None,
        static_url=DOCS_FILES,
    )
    problems = partial(described_problems, locked=key is not None)
    add_errors(api, metrics)

    async def refine(
        request: Request, prompts: Sequence[str], options: RefineOptions
    ) -> tuple[list[Refined], list[str]]:
        results = await refined(engine, settings, request, prompts, options=options)
        metrics.prompts.labels(request.scope["route"].path).inc(len(prompts))
        return results, engine.shortcomings(prompts, results, options)

    @api.get("/", include_in_schema=False)
    async def root(request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/docs")

    _add_refine(api, engine, refine, problems)
    if engine.generator is not None:
        _add_images(api, engine, settings, metrics, problems=problems)
    add_openai_routes(api, engine, refine, problems)
    _add_status(api, engine, metrics, problems)
    application: Application = Guard(
        _below(api, settings.root_path),
        host,
        None,
        settings.max_body_bytes,
        body_timeout_s=settings.client_timeout_s,
        names=settings.host_names,
        origins=settings.allow_origins,
        headers=API_HEADERS,
    )
    if key is not None:
        declare_key(api)
        application = KeyCheck(application, key, [*OPEN_PATHS, *OPEN_FILES])
    application = OpenAIErrors(application)
    if settings.allow_origins:
        application = CORSMiddleware(
            application,
            allow_origins=settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's own client for browsers sends a dozen of its own
            expose_headers=["retry-after"],
        )
    return Counted(application, metrics, [*OPEN_PATHS, *(path for path in api.openapi()["paths"])])


def _add_refine(api: FastAPI, engine: Engine, refine: Refine, problems: Problems) -> None:
    responses = problems(400, 422, 503, 504)

    @api.post("/v1/refine", response_model=RefineAnswer, responses=responses, summary="Refine", **_TAG)
    async def refine_prompts(body: RefineRequest, request: Request) -> Response:
        """Refine prompts: each keeps its words and gains modifiers that image models respond to."""
        prompts = prompt_list(body.prompt)
        results, warnings = await refine(request, prompts, body.options())
        answers = [
            RefinedPrompt(
                user_prompt=prompt,
                refined_prompts=result.texts,
                added=[modifiers_added(prompt, text) for text in result.texts],
                negative_prompts=[negative_prompt(text) for text in result.texts] if body.with_negative else None,
            )
            for prompt, result in zip(prompts, results, strict=True)
        ]
        return RefineAnswer(model=engine.model, results=answers, warnings=warnings).response()


def _add_images(
    api: FastAPI, engine: Engine, settings: ServerSettings, metrics: Metrics, *, problems: Problems
) -> None:
    generator = engine.generator
    assert generator is not None

    responses = problems(400, 422, 503, 504)

    @api.post("/v1/images", response_model=ImagesAnswer, responses=responses, summary="Draw", **_TAG)
    async def draw(body: ImagesRequest, request: Request) -> Response:
        """Draw each prompt plain and refined, from the same seeds. The generator reads all of a refined prompt."""
        prompts, options = prompt_list(body.prompt), body.options()
        deadline = asyncio.get_running_loop().time() + settings.timeout_s
        results = await refined(
            engine, settings, request, prompts, options=options, deadline=deadline, for_generator=True
        )
        # Equal drawings share their image, so a prompt that gained nothing is drawn once.
        seeds = range(options.seed, options.seed + body.images_per_prompt)
        pairs = [(prompt, result.texts[0]) for prompt, result in zip(prompts, results, strict=True)]
        wanted = [
            [Drawing(prompt, text, seed) for seed in seeds] for prompt, refined in pairs for text in (prompt, refined)
        ]
        distinct = list(dict.fromkeys(drawing for group in wanted for drawing in group))
        future = engine.draw(distinct, deadline - asyncio.get_running_loop().time())
        distinct_images = await answer_of(future, request.receive, deadline, settings.timeout_s)
        drawn = dict(zip(distinct, distinct_images, strict=True))

        def drawings(group: Sequence[Drawing]) -> Drawings:
            images = [drawn[drawing] for drawing in group]
            scores = {
                name: [None if math.isnan(score := image.scores[name]) else score for image in images]
                for name in images[0].scores
            }
            return Drawings(images=[image.png for image in images], scores=scores)

        answers = [
            DrawnPrompt(
                user_prompt=prompt,
                refined_prompt=text,
                added=modifiers_added(prompt, text),
                seeds=list(seeds),
                plain=drawings(plain),
                refined=drawings(refined),
            )
            for (prompt, text), plain, refined in zip(pairs, wanted[::2], wanted[1::2], strict=True)
        ]
        metrics.prompts.labels(request.scope["route"].path).inc(len(prompts))
        warnings = engine.shortcomings(prompts, results, options, for_generator=True)
        return ImagesAnswer(model=engine.model, generator=generator.name, results=answers, warnings=warnings).response()


def _add_status(api: FastAPI, engine: Engine, metrics: Metrics, problems: Problems) -> None:
    dead = {"model": Problem, "description": DEAD[0].upper() + DEAD[1:]}

    responses: dict[int | str, Any] = {**described_problems(locked=False), 503: dead}

    @api.get("/healthz", response_model=Health, responses=responses, summary="Health", tags=["Operation"])
    async def health() -> Response:
        """Report whether the server works, and what it has loaded."""
        if not engine.works:
            return problem_answer(503, DEAD)
        name = None if engine.generator is None else engine.generator.name
        return Health(model=engine.model, generator=name, version=version("prip")).response()

    plain_text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()}

    @api.get("/metrics", response_class=Response, responses=plain_text, summary="Metrics", tags=["Operation"])
    async def report_metrics() -> Response:
        """Report requests, latencies, prompts, batch sizes, queues and memory to Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


def _below(application: Application, root_path: str) -> Application:
    """Return an application that knows under which path a proxy serves it."""

    async def below(scope: Message, receive: Receive, send: Send) -> None:
        path = f"{root_path}{scope['path']}"  # ASGI's path includes the root path
        await application({**scope, "root_path": root_path, "path": path}, receive, send)

    return below if root_path else application


async def refined(
    engine: Engine,
    settings: ServerSettings,
    request: Request,
    prompts: Sequence[str],
    *,
    options: RefineOptions,
    deadline: float | None = None,
    for_generator: bool = False,
) -> list[Refined]:
    """Return the refined prompts of a request.

    Args:
        deadline: On the event loop's clock; by default the server's time limit counted from now.
        for_generator: Whether the token budget is counted by the generator's tokenizer.

    Raises:
        InputError: A prompt cannot be refined.
        Refused: The queue is full.
        TimedOut: The deadline has passed.
        ClientGone: The client disconnected.
    """
    check_user_prompts(prompts[0] if len(prompts) == 1 else prompts)
    if deadline is None:
        deadline = asyncio.get_running_loop().time() + settings.timeout_s
    future = engine.refine(prompts, options, for_generator)
    return await answer_of(future, request.receive, deadline, settings.timeout_s)
