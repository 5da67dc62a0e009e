"""What stands in front of the application, with another one behind it."""

import asyncio
import json

import pytest

pytest.importorskip("fastapi")

from blackswan.serving.guard import Guard
from blackswan.serving.limits import Limits

SCOPE = {"type": "http", "path": "/v1/score", "headers": []}


def ask(inner, *parts, limits=None, leave_after=None, guard=None, scope=None):
    """Send a request in parts; return status, headers and body, None where nothing came back."""
    sent, seen = [], []
    guard = guard or Guard(inner, limits or Limits(), None, lambda *each: seen.append(each))

    async def run():
        waiting = [
            {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
            for number, part in enumerate(parts)
        ]

        async def receive():
            if waiting:
                return waiting.pop(0)
            await asyncio.sleep(60 if leave_after is None else leave_after)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await guard({**SCOPE, **(scope or {})}, receive, send)

    asyncio.run(run())
    if not sent:
        return None
    body = b"".join(message.get("body", b"") for message in sent[1:])
    assert seen in ([("other", sent[0]["status"])], [])
    return sent[0]["status"], dict(sent[0]["headers"]), body


async def echo(scope, receive, send):
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def broken(scope, receive, send):
    raise RuntimeError("password: hunter2")


class Slow:
    """An application that never answers, and notes that it was told to stop."""

    stopped = False

    async def __call__(self, scope, receive, send):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.stopped = True
            raise


def test_a_request_is_handed_on_whole():
    assert ask(echo, b"a", b"b")[::2] == (200, b"ab")


def test_a_body_too_large_is_not_read_to_its_end():
    status, headers, body = ask(broken, b"ab", b"cd", b"never", limits=Limits(body_bytes=3))
    assert status == 413
    assert headers[b"connection"] == b"close"
    assert json.loads(body)["detail"].startswith("the request has more than 3 bytes")
    announced = {"headers": [(b"content-length", b"1000000000")]}
    assert ask(broken, scope=announced, leave_after=0)[0] == 413


def test_a_slow_client_is_given_up():
    status, _, body = ask(broken, limits=Limits(upload_seconds=0.01))
    assert (status, json.loads(body)["detail"]) == (
        408, "the request did not arrive in 0.01 seconds",
    )  # fmt: skip


def test_a_client_that_goes_away_stops_the_work():
    slow = Slow()
    assert ask(slow, b"a", leave_after=0.01) is None
    assert slow.stopped
    assert ask(echo, leave_after=0) is None  # before its body was there


def test_an_answer_that_takes_too_long_is_stopped():
    slow = Slow()
    status, headers, _ = ask(slow, b"a", limits=Limits(answer_seconds=0.01))
    assert (status, headers[b"retry-after"]) == (503, b"1")
    assert slow.stopped


def test_bodies_take_bounded_memory_together():
    limits = Limits(held_bytes=5)
    guard = Guard(echo, limits, None, lambda *_: None)
    assert ask(echo, b"1234", guard=guard)[0] == 200
    assert guard._held == 0
    status, headers, _ = ask(echo, b"123", b"456", guard=guard)
    assert (status, headers[b"retry-after"]) == (429, b"1")
    assert guard._held == 0


def test_what_nobody_foresaw_shows_nothing_of_the_inside():
    status, _, body = ask(broken, b"a")
    assert status == 500
    assert b"hunter2" not in body
