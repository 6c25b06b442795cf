"""The answer to each error, and what OpenAPI says about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from prip.errors import InputError

from .batching import Refused
from .engine import ClientGone, TimedOut
from .metrics import Metrics
from .schemas import Problem, UnknownField

OPEN_PATHS = ("/", "/healthz", "/docs", "/openapi.json")
"""Paths that need no key."""
MALFORMED = {
    "missing": "{} is missing",
    "model_attributes_type": "{}: expected a JSON object, sent with the header Content-Type: application/json",
}
"""Messages for pydantic's errors about the shape of a request."""

DEAD = "refining or drawing has stopped working; see the server's log"
CLIENT_GONE = 499
"""Status in the metrics of a request whose client disconnected."""

PROBLEMS = {
    400: "The request is not valid HTTP, or its body not valid JSON",
    401: "The request does not have the server's API key",
    403: "The request names another host, or comes from a page of another site",
    404: "No such model",
    408: "The body did not arrive in time",
    413: "The body is too large",
    422: "An argument is invalid; the detail says which one, what was expected and what was sent",
    500: "Internal server error",
    503: "The queue is full or the time too short; Retry-After says when to try again",
    504: "There was no answer in time",
}

Problems = Callable[..., dict[int | str, dict[str, Any]]]


def described_problems(
    *statuses: int, locked: bool, model: type[BaseModel] = Problem
) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's errors, including those that any request may get.

    Args:
        statuses: Statuses besides those of any request.
        locked: Whether the server has a key.
        model: The body of an error.
    """
    listed = {403, 408, 413, 500, *statuses} | ({401} if locked else set())
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": model, "description": PROBLEMS[status]} for status in sorted(listed)
    }
    if 503 in described:
        described[503]["headers"] = {
            "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}, "required": True}
        }
    if 401 in described:
        described[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    return described


def problem_answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as JSON."""
    return JSONResponse(Problem(detail=detail).model_dump(), status, headers)


def add_errors(api: FastAPI, metrics: Metrics) -> None:
    """Register the answer to each exception."""

    @api.exception_handler(InputError)
    async def invalid(_request: Request, error: InputError) -> Response:
        return problem_answer(422, str(error).encode("ascii", "backslashreplace").decode())

    @api.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> Response:
        faults = error.errors()
        if faults[0]["type"] == "json_invalid":
            return problem_answer(400, f"body: not valid JSON: {faults[0]['ctx']['error']}")
        return problem_answer(422, "; ".join(map(_in_words, faults[:3])))

    @api.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        metrics.refused.inc()
        return problem_answer(503, str(error), {"retry-after": str(error.retry_after_s)})

    @api.exception_handler(TimedOut)
    async def timed_out(_request: Request, error: TimedOut) -> Response:
        return problem_answer(504, str(error))

    @api.exception_handler(ClientGone)
    async def client_gone(_request: Request, _error: ClientGone) -> Response:
        return Response(status_code=CLIENT_GONE)

    @api.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> Response:
        return problem_answer(error.status_code, str(error.detail), dict(error.headers or {}))

    @api.exception_handler(Exception)
    async def internal(_request: Request, _error: Exception) -> Response:
        return problem_answer(500, "internal server error; see the server's log")


def _in_words(problem: dict[str, Any]) -> str:
    """Return one of pydantic's errors as which argument, what was expected and, if it is short, what was sent."""
    steps = [str(step) for step in problem["loc"][1:] if step not in ("string", "list")]
    name = ".".join(steps).encode("ascii", "backslashreplace").decode() or "body"
    if isinstance(error := problem.get("ctx", {}).get("error"), UnknownField):
        return str(error)
    if problem["type"] in MALFORMED:
        return MALFORMED[problem["type"]].format(name)
    value = problem.get("input")
    shown = ascii(value) if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be a", "expected a")
    message = message.replace("Input should be", "expected a value")
    return f"{name}: {message}, got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def declare_key(api: FastAPI) -> None:
    """Declare in OpenAPI that all routes except OPEN_PATHS need the key."""
    document = api.openapi()
    document.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        if path not in OPEN_PATHS:
            for operation in operations.values():
                operation["security"] = [{"key": []}]
