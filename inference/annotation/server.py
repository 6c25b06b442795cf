"""Serves the annotation page and its study over HTTP."""

from __future__ import annotations

import socket
from importlib.resources import files
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from prip.errors import InputError, any_of

from ..network.request_guard import Guard
from .blinding import NAME_LENGTH
from .items import RELEVANCE
from .study import Study

PAGE_FILES = {"/": "text/html", "/style.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"}

LARGEST_SECONDS = 86_400.0

BODY_BYTES = 4096
"""Size limit of a request; an answer has about 200 bytes."""

Token = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    annotator: Annotated[str, Field(max_length=4 * NAME_LENGTH)]
    request: Annotated[str, Field(pattern=r"^[0-9a-f-]{16,64}$")]


class AnswerRequest(_Request):
    """An answer to one question, `seconds` after its images appeared."""

    item: Token
    answer: Literal["0", "1", "2", "left", "right", "tie"]
    seconds: Annotated[float, Field(ge=0, le=LARGEST_SECONDS, allow_inf_nan=False)]


class UndoRequest(_Request):
    """Undo the latest answer; `answered`: the number of answers that the page believes to exist."""

    answered: Annotated[int, Field(ge=0)]


def make_application(study: Study, host: str, port: int) -> Guard:
    """Return the ASGI application that serves the page and the study, only to requests from its own page."""
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    allowed = ("0", "1", "2") if study.task == RELEVANCE else ("left", "right", "tie")

    @application.exception_handler(InputError)
    def refuse(_request: Any, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    def page_file(path: str, media_type: str) -> None:
        name = path.removeprefix("/") or "index.html"
        content = (files(__package__) / "web" / name).read_bytes()

        @application.get(path)
        def page() -> Response:
            return Response(content, media_type=media_type, headers={"cache-control": "no-cache"})

    for path, media_type in PAGE_FILES.items():
        page_file(path, media_type)

    @application.get("/api/study")
    def describe() -> dict[str, Any]:
        return {"task": study.task, "total": len(study.items)}

    @application.get("/api/state")
    def state(annotator: str) -> dict[str, Any]:
        return study.state(annotator)

    @application.post("/api/answer")
    def answer(sent: AnswerRequest) -> dict[str, Any]:
        if sent.answer not in allowed:
            raise InputError(f"answer: expected {any_of(allowed)}, got {sent.answer!r}")
        counts = study.answer(sent.annotator, sent.item, sent.answer, sent.seconds, sent.request)
        return {"counts": counts, **study.state(sent.annotator)}

    @application.post("/api/undo")
    def undo(sent: UndoRequest) -> dict[str, Any]:
        counts = study.undo(sent.annotator, sent.answered, sent.request)
        return {"counts": counts, **study.state(sent.annotator)}

    @application.get("/image/{name}")
    def image(name: str, annotator: str) -> Response:
        content = study.image(annotator, name)
        if content is None:
            return Response("no such image", status_code=404, media_type="text/plain")
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=3600, immutable"})

    return Guard(application, host, port, BODY_BYTES)


def serve(study: Study, host: str, listening: socket.socket) -> None:
    """Serve until interrupted."""
    application = make_application(study, host, listening.getsockname()[1])
    settings = uvicorn.Config(
        application, log_level="warning", access_log=False, http="h11", ws="none", lifespan="off", server_header=False
    )
    uvicorn.Server(settings).run(sockets=[listening])
