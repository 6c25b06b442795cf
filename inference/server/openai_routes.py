"""The routes for clients of OpenAI's API: completions, chat and models."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from prip.control.negative import negative_prompt
from prip.options import RefineOptions
from prip.refine_batch import Refined
from prip.text.prompts import own_words

from ..network.request_guard import Application, Message, Receive, Send, as_pairs
from .engine import Engine
from .openai_schemas import (
    ChatAnswer,
    ChatChoice,
    ChatMessage,
    ChatRequest,
    Choice,
    CompletionsAnswer,
    CompletionsRequest,
    ModelCard,
    ModelsAnswer,
    OpenAIProblem,
    OpenAIRequest,
    Usage,
)
from .problems import Problems
from .schemas import prompt_list

PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/models")
"""Paths whose errors have OpenAI's shape; those below them as well."""
_TAG: Any = {"tags": ["OpenAI"]}
_TYPES = {401: "authentication_error", 403: "permission_error", 503: "overloaded_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 503: "overloaded"}

Refine = Callable[[Request, Sequence[str], RefineOptions], Awaitable[tuple[list[Refined], list[str]]]]
"""Refines the prompts of a request; returns the results with warnings."""


def add_openai_routes(api: FastAPI, engine: Engine, refine: Refine, problems: Problems) -> None:
    """Add the routes of `PATHS`."""
    problems = partial(problems, model=OpenAIProblem)
    event = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
    streamed: dict[int | str, Any] = {200: {"content": {"text/event-stream": {"schema": event}}}}
    responses = {**streamed, **problems(400, 404, 422, 503, 504)}
    started = int(time.time())

    def check_model(name: str) -> None:
        if name != engine.model:
            raise HTTPException(404, f"model: expected {engine.model!r} (see /v1/models), got {name!a:.100}")

    async def answered(body: OpenAIRequest, request: Request, prompts: Sequence[str]) -> tuple[list[Refined], Any]:
        """Return the results, cut at the stop texts, and what both answers have in common."""
        check_model(body.model)
        results, warnings = await refine(request, prompts, body.options())
        results = [cut(prompt, result, body.stops) for prompt, result in zip(prompts, results, strict=True)]
        read, added = await asyncio.to_thread(engine.count_tokens, prompts, results)
        usage = Usage(prompt_tokens=read, completion_tokens=added, total_tokens=read + added)
        common = {"created": int(time.time()), "model": engine.model, "usage": usage, "warnings": warnings}
        return results, common

    @api.post("/v1/completions", response_model=CompletionsAnswer, responses=responses, summary="Complete", **_TAG)
    async def complete(body: CompletionsRequest, request: Request) -> Response:
        """Refine prompts for clients of OpenAI's completions API: each choice has the text added to a prompt."""
        prompts = prompt_list(body.prompt)
        results, common = await answered(body, request, prompts)
        pairs = [
            (prompt, result, text) for prompt, result in zip(prompts, results, strict=True) for text in result.texts
        ]
        choices = [
            Choice(
                text=added_text(prompt, text, result),
                index=index,
                finish_reason=reason(result),
                negative_prompt=negative_prompt(text) if body.with_negative else None,
            )
            for index, (prompt, result, text) in enumerate(pairs)
        ]
        answer = CompletionsAnswer(id=f"cmpl-{uuid.uuid4().hex}", choices=choices, **common)
        return events(_completion_chunks(answer), answer, body) if body.stream else answer.response()

    @api.post("/v1/chat/completions", response_model=ChatAnswer, responses=responses, summary="Chat", **_TAG)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Refine the last message of the user for clients of OpenAI's chat API: each choice is a refined prompt."""
        results, common = await answered(body, request, [body.prompt])
        choices = [
            ChatChoice(
                index=index,
                message=ChatMessage(content=text),
                finish_reason=reason(results[0]),
                negative_prompt=negative_prompt(text) if body.with_negative else None,
            )
            for index, text in enumerate(results[0].texts)
        ]
        answer = ChatAnswer(id=f"chatcmpl-{uuid.uuid4().hex}", choices=choices, **common)
        return events(_chat_chunks(answer), answer, body) if body.stream else answer.response()

    @api.get("/v1/models", response_model=ModelsAnswer, responses=problems(), summary="List models", **_TAG)
    async def models() -> Response:
        """Name the loaded refiner."""
        return ModelsAnswer(data=[ModelCard(id=engine.model, created=started)]).response()

    @api.get(
        "/v1/models/{model:path}", response_model=ModelCard, responses=problems(404), summary="Get a model", **_TAG
    )
    async def model_card(model: str) -> Response:
        """Describe the loaded refiner."""
        check_model(model)
        return ModelCard(id=engine.model, created=started).response()


def added_text(user_prompt: str, text: str, result: Refined) -> str:
    """Return what a refined prompt adds after the user's own words."""
    return "" if result.unchanged else text[len(own_words(user_prompt)) :]


def cut(user_prompt: str, result: Refined, stops: Sequence[str]) -> Refined:
    """Return the result with the added text of each refined prompt ending before the first stop text."""
    if result.unchanged or not stops:
        return result
    pattern, start = re.compile("|".join(map(re.escape, stops))), len(own_words(user_prompt))
    return replace(result, texts=[text[:start] + pattern.split(text[start:], 1)[0] for text in result.texts])


def reason(result: Refined) -> Literal["length", "stop"]:
    """Return why the choices of a result end."""
    return "length" if result.unchanged else "stop"


def events(chunks: Iterator[dict[str, Any]], answer: CompletionsAnswer | ChatAnswer, body: OpenAIRequest) -> Response:
    """Return an answer as server-sent events, with the fields that its chunks have in common."""
    kind = "chat.completion.chunk" if isinstance(answer, ChatAnswer) else "text_completion"
    common = {"id": answer.id, "object": kind, "created": answer.created, "model": answer.model}
    messages: list[dict[str, Any]] = [{**common, "choices": [chunk]} for chunk in chunks]
    if body.streams_usage:
        messages.append({**common, "choices": [], "usage": answer.usage.model_dump()})
    messages[0]["warnings"] = answer.warnings
    lines = [*(json.dumps(message, ensure_ascii=False) for message in messages), "[DONE]"]
    return Response("".join(f"data: {line}\n\n" for line in lines), media_type="text/event-stream")


def _completion_chunks(answer: CompletionsAnswer) -> Iterator[dict[str, Any]]:
    for choice in answer.choices:
        yield {**choice.model_dump(), "finish_reason": None}
        yield {**choice.model_dump(), "text": ""}


def _chat_chunks(answer: ChatAnswer) -> Iterator[dict[str, Any]]:
    for choice in answer.choices:
        common = {"index": choice.index, "logprobs": None, "negative_prompt": choice.negative_prompt}
        delta = {"role": "assistant", "content": choice.message.content}
        yield {**common, "delta": delta, "finish_reason": None}
        yield {**common, "delta": {}, "finish_reason": choice.finish_reason}


class OpenAIErrors:
    """ASGI middleware that gives the errors of the routes in OpenAI's format their shape, refusals included."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        is_openai = scope["type"] == "http" and scope["path"].startswith(PATHS)
        await self.application(scope, receive, _reshaped(send) if is_openai else send)


def _reshaped(send: Send) -> Send:
    """Return a `send` that turns {"detail": ...} of an error into OpenAI's {"error": ...}."""
    start: Message | None = None
    body = bytearray()

    async def send_reshaped(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and message["status"] >= 400:
            start = message
            return
        if start is None:
            await send(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        shaped = openai_error(start["status"], bytes(body))
        headers = [pair for pair in start.get("headers", []) if pair[0].lower() != b"content-length"]
        await send({**start, "headers": [*headers, *as_pairs({"content-length": str(len(shaped))})]})
        await send({**message, "body": shaped})

    return send_reshaped


def openai_error(status: int, body: bytes) -> bytes:
    """Return the body {"detail": ...} of an error in OpenAI's shape; a body without a detail stays as it is."""
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        return body
    named = re.match(r"([\w.]+)(?=: | is )", detail) if status in (404, 422) else None
    error = {
        "message": detail,
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": named[1] if named else None,
        "code": None if status == 404 and named is None else _CODES.get(status),
    }
    return json.dumps({"error": error}).encode()
