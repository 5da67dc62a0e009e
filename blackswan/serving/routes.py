"""How a route whose body is read by hand is described for OpenAPI."""

import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from fastapi import FastAPI, Request, Response

from blackswan.serving.problems import Refused

Schema = dict[str, Any]  # of JSON
JSON = "application/json"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
)
CAMERA, CAMERA_HEADER = r"[A-Za-z0-9_.-]{0,64}", "X-Camera"
CAMERA_PARAMETER = {
    "name": CAMERA_HEADER,
    "in": "header",
    "required": False,
    "description": "that took the images, for the log of `blackswan serve --log`",
    "schema": {"type": "string", "pattern": f"^{CAMERA}$"},
}
PROBLEMS: dict[int | str, str] = {
    400: "What was sent is no image, or not of this form",
    401: "The API key is missing or wrong",
    408: "The request did not arrive in time",
    413: "Too many bytes or images",
    415: "Another type of content",
    429: "Too many images wait; see Retry-After",
    503: "It takes too long, or the service is shutting down",
}


def content_type(request: Request) -> str:
    """Return the kind of what a request sends, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def camera_of(request: Request) -> str:
    """Return the camera that a request names for the log, or ''."""
    camera = request.headers.get(CAMERA_HEADER, "")
    if not re.fullmatch(CAMERA, camera):
        raise Refused(400, f"{CAMERA_HEADER} takes letters, digits, _, . and -, at most 64")
    return camera


def of_images(picture: Schema, asked: Schema, example: Schema) -> Schema:
    """Describe a body of images, as files of a form or as JSON, and what may be asked of them."""
    kinds = {
        "multipart/form-data": {"schema": {"type": "string", "format": "binary"}},
        JSON: {"schema": picture, "example": example},
    }
    return {
        kind: content
        | {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "items": content["schema"]}, **asked},
            }
        }
        for kind, content in kinds.items()
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
    *,
    named: bool = False,
    **settings: Any,  # noqa: ANN401 - of FastAPI
) -> None:
    """Add a route whose body is read by hand, described for OpenAPI.

    Where images are `named`, a header says which camera took them.
    """
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": body}}
    if named:
        extra["parameters"] = [CAMERA_PARAMETER]
    problems = described(refusals or PROBLEMS)

    @wraps(handler)
    async def of_kind(request: Request) -> Response:
        # A page of another site may send text/plain without being asked whether it may.
        if set(body) == {JSON} and content_type(request) != JSON:
            raise Refused(415, f"send the body with Content-Type: {JSON}")
        return await handler(request)

    app.post(path, openapi_extra=extra, responses=problems, **settings)(of_kind)
