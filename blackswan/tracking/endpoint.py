"""MLflow's scoring server behind what it lacks: a limit of bytes, and errors in one sentence.

Its own answers to bad requests carry a stack trace and the request. The routes and payloads stay
those of MLflow: /invocations, /ping, /health, /version.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from blackswan.errors import InputError, without_secrets
from blackswan.tracking import registry
from blackswan.tracking.contract import MAX_BYTES

UPLOAD_SECONDS = 60  # in which a request must have arrived
UNKNOWN = "the request could not be scored; the server's log says why"
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def serve(model: str, host: str, port: int) -> None:
    """Serve a registered or logged model, such as models:/blackswan@champion, until Ctrl-C.

    Raises InputError where there is no such model, or its files are not those of its manifest.
    """
    import uvicorn

    app = open_app(model)
    print(f"{model} at http://{host}:{port}/invocations", flush=True)
    try:
        uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
    except SystemExit:  # uvicorn has logged what the system said
        raise InputError(
            f"port {port} of {host} cannot be used; choose another by --port"
        ) from None


def open_app(model: str) -> App:
    """Load a model by its URI and return the application that serves it."""
    with registry.asked(f"loading {model}"):
        registry.set_store()
        import mlflow
        from mlflow.pyfunc import scoring_server

        return Plain(scoring_server.init(mlflow.pyfunc.load_model(model)))


class Plain:
    """An ASGI application in front of another: bounded requests, errors of one sentence."""

    def __init__(self, inner: App) -> None:
        self.inner = inner

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hand a request on, once it has arrived whole, and what comes back."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(_body(receive), UPLOAD_SECONDS)
        except TimeoutError:
            await _refuse(send, 408, f"the request did not arrive in {UPLOAD_SECONDS} seconds")
            return
        if body is None:
            await _refuse(send, 413, f"the request has more than {MAX_BYTES:,} bytes; send fewer")
            return
        answered: list[Message] = []

        async def keep(message: Message) -> None:
            answered.append(message)

        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        try:
            await self.inner(scope, replay, keep)
        except Exception:  # whatever the server did not foresee
            logging.getLogger(__name__).exception("a request failed")
            await _refuse(send, 500, UNKNOWN)
            return
        status = answered[0]["status"]
        if status < 400:
            for message in answered:
                await send(message)
            return
        content = b"".join(message.get("body", b"") for message in answered[1:])
        await _refuse(send, status, sentence(content))


def sentence(content: bytes) -> str:
    """Return the message of an error of MLflow, without its stack trace and the request."""
    try:
        said = json.loads(content)
    except ValueError:
        said = content.decode("utf-8", "replace")
    if isinstance(said, dict):
        said = said.get("message") or said.get("detail")
    if not isinstance(said, str):
        return UNKNOWN
    # "Failed to predict data '<the request>'. \nError: <what was wrong>"
    said = said.rpartition("\nError: ")[2].partition("\nInput: ")[0]
    said = said.partition("IMPORTANT: ")[0].strip()
    return without_secrets(said, UNKNOWN)


async def _body(receive: Receive) -> bytes | None:
    """Return the body of a request, None where it is larger than MAX_BYTES."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""  # the client is gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


async def _refuse(send: Send, status: int, message: str) -> None:
    content = json.dumps({"error_code": status, "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
