"""The routes of `prip serve`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from prip.options import RefineOptions
from prip.refiner import Refined
from prip.text.prompts import check_user_prompts, modifiers_added, own_words

from ..network.request_guard import API_HEADERS, Application, Guard
from .access import KeyCheck
from .engine import Drawing, Engine, answer_of
from .metrics import Counted, Metrics
from .problems import DEAD, OPEN_PATHS, Problems, add_errors, declare_key, described_problems, problem_answer
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

DOCS_FILES = "/docs-files"
OPEN_FILES = tuple(f"{DOCS_FILES}/{name}" for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"))
"""Files of the page /docs, which need no key either. The server has its own copies and contacts no other site."""


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
    _add_refine(api, engine, settings, metrics, problems=problems)
    if engine.generator is not None:
        _add_images(api, engine, settings, metrics, problems=problems)
    _add_status(api, engine, metrics, problems)
    application: Application = Guard(
        api,
        host,
        None,
        settings.max_body_bytes,
        body_timeout_s=settings.client_timeout_s,
        names=settings.host_names,
        headers=API_HEADERS,
    )
    if key is not None:
        declare_key(api)
        application = KeyCheck(application, key, [*OPEN_PATHS, *OPEN_FILES])
    return Counted(application, metrics, [*OPEN_PATHS, *(path for path in api.openapi()["paths"])])


def _add_refine(
    api: FastAPI, engine: Engine, settings: ServerSettings, metrics: Metrics, *, problems: Problems
) -> None:
    async def refine(request: Request, prompts: list[str], options: RefineOptions) -> tuple[list[Refined], list[str]]:
        results = await refined(engine, settings, request, prompts, options=options)
        metrics.prompts.labels(request.scope["path"]).inc(len(prompts))
        return results, engine.shortcomings(prompts, results, options)

    @api.post("/v1/refine", response_model=RefineAnswer, responses=problems(400, 422, 503, 504))
    async def refine_prompts(body: RefineRequest, request: Request) -> Response:
        """Refine prompts: each keeps its words and gains modifiers that image models respond to."""
        prompts = prompt_list(body.prompt)
        results, warnings = await refine(request, prompts, body.options())
        answers = [
            RefinedPrompt(
                user_prompt=prompt,
                refined_prompts=result.texts,
                added=[modifiers_added(prompt, text) for text in result.texts],
            )
            for prompt, result in zip(prompts, results, strict=True)
        ]
        return _json(RefineAnswer(model=engine.model, results=answers, warnings=warnings))

    @api.post("/v1/completions", response_model=CompletionsAnswer, responses=problems(400, 404, 422, 503, 504))
    async def complete(body: CompletionsRequest, request: Request) -> Response:
        """Refine prompts for clients of OpenAI's completions API: each choice has the text added to a prompt."""
        if body.model != engine.model:
            raise HTTPException(404, f"model: expected {engine.model!r} (see /v1/models), got {body.model!a:.100}")
        prompts, options = prompt_list(body.prompt), body.options()
        results, warnings = await refine(request, prompts, options)
        choices = [
            Choice(
                text="" if result.unchanged else text[len(own_words(prompt)) :],
                index=number * options.num_alternatives + index,
                finish_reason="length" if result.unchanged else "stop",
            )
            for number, (prompt, result) in enumerate(zip(prompts, results, strict=True))
            for index, text in enumerate(result.texts)
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


def _add_images(
    api: FastAPI, engine: Engine, settings: ServerSettings, metrics: Metrics, *, problems: Problems
) -> None:
    generator = engine.generator
    assert generator is not None

    @api.post("/v1/images", response_model=ImagesAnswer, responses=problems(400, 422, 503, 504))
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
            scores = {name: [image.scores[name] for image in images] for name in images[0].scores}
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
        metrics.prompts.labels(request.scope["path"]).inc(len(prompts))
        warnings = engine.shortcomings(prompts, results, options, for_generator=True)
        return _json(ImagesAnswer(model=engine.model, generator=generator.name, results=answers, warnings=warnings))


def _add_status(api: FastAPI, engine: Engine, metrics: Metrics, problems: Problems) -> None:
    started = int(time.time())

    @api.get("/v1/models", response_model=ModelsAnswer, responses=problems())
    async def models() -> Response:
        """Name the loaded refiner, in the format of OpenAI's API."""
        return _json(ModelsAnswer(data=[ModelCard(id=engine.model, created=started)]))

    dead = {"model": Problem, "description": DEAD[0].upper() + DEAD[1:]}

    @api.get("/healthz", response_model=Health, responses={**described_problems(locked=False), 503: dead})
    async def health() -> Response:
        """Report whether the server works, and what it has loaded."""
        if not engine.works:
            return problem_answer(503, DEAD)
        name = None if engine.generator is None else engine.generator.name
        return _json(Health(model=engine.model, generator=name, version=version("prip")))

    plain_text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()}

    @api.get("/metrics", response_class=Response, responses=plain_text)
    async def report_metrics() -> Response:
        """Report requests, latencies, prompts, batch sizes, queues and memory to Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")


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


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json")
