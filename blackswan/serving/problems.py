"""Problem details (RFC 9457): how the service says no, in one sentence."""

import json
import math
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
UNKNOWN = "the request could not be answered; the server's log says why"


class Refused(Exception):  # noqa: N818 - the answer, not a fault
    """A request that is not answered, and what to do about it."""

    def __init__(
        self,
        status: int,
        detail: str,
        retry_seconds: float | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_seconds = status, detail, retry_seconds
        self.more = more or {}  # members beside the standard ones


def problem(
    status: int,
    detail: str,
    retry_seconds: float | None = None,
    more: dict[str, Any] | None = None,
    *,
    close: bool = False,
) -> Response:
    """Return the answer that refuses a request; `close` hangs up on what has not arrived."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        # What clients of MLflow read.
        "error_code": status,
        "message": detail,
    } | (more or {})
    headers = {}
    if retry_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_seconds)))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if close:
        headers["Connection"] = "close"
    return Response(json.dumps(content), status, headers, MEDIA_TYPE)
