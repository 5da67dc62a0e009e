"""How a route whose body is read by hand is described for OpenAPI."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
)
PROBLEMS: dict[int | str, str] = {
    400: "What was sent is no image, or not of this form",
    401: "The API key is missing or wrong",
    408: "The request did not arrive in time",
    413: "Too many bytes or images",
    415: "Another type of content",
    429: "Too many images wait; see Retry-After",
    503: "It takes too long, or the service is shutting down",
}


def described(refusals: dict[int | str, str]) -> dict[int | str, dict[str, Any]]:
    """Return problem details by status, as FastAPI takes them for OpenAPI."""
    return {
        status: {"description": what, "content": {"application/problem+json": {}}}
        for status, what in refusals.items()
    }


def route(
    app: FastAPI,
    path: str,
    handler: Callable[[Request], Awaitable[Response]],
    body: dict[str, Any],
    refusals: dict[int | str, str] | None = None,
    **settings: Any,  # noqa: ANN401 - of FastAPI
) -> None:
    """Add a route whose body is read by hand, described for OpenAPI."""
    extra = {"requestBody": {"required": True, "content": body}}
    problems = described(refusals or PROBLEMS)
    app.post(path, openapi_extra=extra, responses=problems, **settings)(handler)
