"""What stands in front of the application: the key, bytes, time, and a client that goes away.

A request is handed on once its body has arrived whole, so that what waits for a slow client is no
detector. What is not answered is refused as problem details.
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from blackswan.serving.limits import Limits
from blackswan.serving.page import FILES
from blackswan.serving.problems import UNKNOWN, Refused, problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

KEY = "BLACKSWAN_API_KEY"
# For what looks after the process, and has no key, and for the page, which asks a person for it.
OPEN = {"/ping", "/health", "/ready"} | {f"/{name}" for name in FILES}


class Guard:
    """An ASGI application in front of another."""

    def __init__(
        self, inner: App, limits: Limits, key: str | None, observe: Callable[[str, int], None]
    ) -> None:
        """Ask for `key` where there is one; `observe` hears the route and status of each answer."""
        self.inner, self.limits, self.observe = inner, limits, observe
        self._key = key.strip().encode() if key and key.strip() else None
        self._held = 0  # bytes of bodies

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Hand a request on, and what comes back."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self._held + size > self.limits.held_bytes:
                raise Refused(
                    429, "requests of too many bytes wait already; try again in a second", 1
                )
            held, self._held = held + size, self._held + size

        try:
            self._check_key(scope)
            body = await self._body(scope, receive, hold)
            if body is not None:
                await self._answered(scope, body, receive, note)
        except Refused as refused:
            if not status:
                answer = problem(refused.status, refused.detail, refused.retry_seconds, close=True)
                await answer(scope, receive, note)
        except Exception:  # whatever was not foreseen
            logging.getLogger(__name__).exception("a request failed")
            if not status:
                await problem(500, UNKNOWN)(scope, receive, note)
        finally:
            self._held -= held
            if status:
                route = scope.get("route")
                self.observe(getattr(route, "path", "other"), status)

    def _check_key(self, scope: Message) -> None:
        if self._key is None or scope["path"] in OPEN:
            return
        headers = dict(scope["headers"])
        given = [headers.get(b"x-api-key", b"")]
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":  # which may be for what stands in front of the service
            given.append(token.strip())
        if not any([hmac.compare_digest(one, self._key) for one in given]):
            raise Refused(401, "the API key is missing or wrong; send it as Authorization: Bearer")

    async def _body(
        self, scope: Message, receive: Receive, hold: Callable[[int], None]
    ) -> bytes | None:
        """Return the body of a request; None where the client is gone."""
        most, seconds = self.limits.body_bytes, self.limits.upload_seconds
        large = Refused(413, f"the request has more than {most:,} bytes; send fewer at a time")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise large

        async def arrived() -> bytes | None:
            parts, size = [], 0
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                part = message.get("body", b"")
                hold(len(part))
                parts.append(part)
                size += len(part)
                if size > most:
                    raise large
                if not message.get("more_body"):
                    return b"".join(parts)

        try:
            return await asyncio.wait_for(arrived(), seconds)
        except TimeoutError:
            raise Refused(408, f"the request did not arrive in {seconds:g} seconds") from None

    async def _answered(self, scope: Message, body: bytes, receive: Receive, send: Send) -> None:
        """Let the application answer; give up where the client does, or it does not begin in time.

        What has begun may take longer: a clip is answered frame by frame.
        """
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return waiting.pop() if waiting else await asyncio.Future()

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        begun = asyncio.Event()

        async def begin(message: Message) -> None:
            begun.set()
            await asyncio.wait_for(send(message), self.limits.answer_seconds)

        answer = asyncio.ensure_future(self.inner(scope, replay, begin))
        left = asyncio.ensure_future(gone())
        began = asyncio.ensure_future(begun.wait())
        first = asyncio.FIRST_COMPLETED
        try:
            seconds = self.limits.answer_seconds
            done, _ = await asyncio.wait({answer, left, began}, timeout=seconds, return_when=first)
            if done == {began}:
                done, _ = await asyncio.wait({answer, left}, return_when=first)
            if answer in done:
                await answer
            elif not done:
                raise Refused(
                    503,
                    f"the answer took longer than {seconds:g} seconds; send fewer images at a "
                    "time, or try again later",
                    seconds,
                )
        finally:
            for task in (answer, left, began):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
