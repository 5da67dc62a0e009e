"""What stands in front of MLflow's server, with another application behind it."""

import asyncio
import json

import pytest

from blackswan.tracking import endpoint
from blackswan.tracking.endpoint import UNKNOWN, Plain, sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b'{"message": "Failed to predict data \'a\'. \\nError: row 0 is no image", '
            b'"stack_trace": "Traceback"}',
            "row 0 is no image",
        ),
        (b'{"message": "no JSON. Error: \'x\'\\nInput: \\n{secret"}', "no JSON. Error: 'x'"),
        (b'{"message": "one field only. IMPORTANT: the protocol changed"}', "one field only."),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b"The scoring server only supports UTF-8", "The scoring server only supports UTF-8"),
        (b'{"message": "password: hunter2hunter2"}', UNKNOWN),
        (b'{"message": 5}', UNKNOWN),
        (b"[]", UNKNOWN),
        (b"", UNKNOWN),
    ],
)
def test_of_an_error_its_sentence_is_kept(content, said):
    assert sentence(content) == said


def ask(inner, *parts):
    """Send a request in parts; return status and body."""
    sent = []
    waiting = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]

    async def receive():
        return waiting.pop(0) if waiting else await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    asyncio.run(Plain(inner)({"type": "http"}, receive, send))
    return sent[0]["status"], b"".join(message["body"] for message in sent[1:])


async def echo(scope, receive, send):
    """Answer with the body of the request."""
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def broken(scope, receive, send):
    raise RuntimeError("password: hunter2")


def test_a_good_answer_is_handed_on():
    assert ask(echo, b"a", b"b") == (200, b"ab")


def test_a_request_that_is_too_large_is_not_handed_on(monkeypatch):
    monkeypatch.setattr(endpoint, "MAX_BYTES", 3)
    assert ask(echo, b"ab", b"c") == (200, b"abc")
    status, body = ask(broken, b"ab", b"cd", b"never read")
    assert (status, json.loads(body)["message"]) == (
        413, "the request has more than 3 bytes; send fewer",
    )  # fmt: skip


def test_a_request_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setattr(endpoint, "UPLOAD_SECONDS", 0.01)
    status, body = ask(broken)
    assert (status, json.loads(body)["message"]) == (
        408, "the request did not arrive in 0.01 seconds",
    )  # fmt: skip


def test_what_nobody_foresaw_shows_nothing_of_the_inside():
    status, body = ask(broken, b"a")
    assert (status, json.loads(body)["message"]) == (500, UNKNOWN)
