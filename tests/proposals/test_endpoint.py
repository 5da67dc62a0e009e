"""Every way in which an endpoint may fail: one sentence, and no key in it."""

import logging
import re
import socket

import pytest
from azure.core.exceptions import ClientAuthenticationError
from servers import free_port, hanging_up

pytest.importorskip("openai")

from drawn_proposals import NORMAL, QUESTION, answering, candidate, completion

from blackswan.errors import InputError
from blackswan.proposals import endpoint
from blackswan.proposals.endpoint import Address, Endpoint, address
from blackswan.proposals.questions import Reply, build, data_uris

SECRET = "sk-abcDEF1234567890abcDEF1234567890"  # pragma: allowlist secret
REQUEST = build(QUESTION, data_uris(candidate(1).pictures))


def ask(url, retries=0, seconds=5.0):
    return Endpoint(Address(url), "gpt", retries, seconds)(REQUEST)


def error(status, code=None, **headers):
    said = f'{{"error": {{"message": "Bad key {SECRET}", "code": "{code}"}}}}'
    return status, {"Content-Type": "application/json", **headers}, said.encode()


def test_what_is_sent_is_what_the_protocol_wants(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with answering(completion(NORMAL)) as (url, requests):
        reply = ask(url)
    assert (reply.tokens_in, reply.tokens_out) == (900, 50)
    [(body, headers)] = requests
    assert body == REQUEST
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert body["response_format"]["json_schema"]["strict"] is True
    pictures = [part["image_url"]["url"] for part in body["messages"][1]["content"]
                if part["type"] == "image_url"]  # fmt: skip
    assert pictures[0] == "data:image/png;base64,Y3JvcCAx"
    assert len(pictures) == 3


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (completion(None, refusal="I can't help with that"), "the model refused"),
        (completion('{"label": "nor', finish="length"), "the answer was cut at --max-tokens"),
        (completion("", finish="content_filter"), "the answer was filtered"),
        (completion(None), "the answer was empty"),
    ],
)
def test_what_is_no_answer_is_an_abstention(answer, why):
    with answering(answer) as (url, _):
        assert ask(url).why == why


def test_images_that_the_endpoint_refuses_are_an_abstention():
    with answering(error(400, "content_filter")) as (url, _):
        assert ask(url) == Reply("", "the endpoint refused the images (content_filter)", 0, 0)


def test_tokens_may_be_unknown():
    with answering(completion(NORMAL, usage=None)) as (url, _):
        reply = ask(url)
    assert (reply.tokens_in, reply.tokens_out, reply.why) == (None, None, "")


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error(400, "unsupported_parameter"),
         "answers with status 400 (unsupported_parameter); it must take images"),
        (error(401, "invalid_api_key"), "answers with status 401 (invalid_api_key); set OPENAI_"),
        (error(403), "answers with status 403; the key may not use"),
        (error(404, SECRET), "answers with status 404; check --base-url"),
        (error(429, "insufficient_quota"), "answers with status 429 (insufficient_quota); its"),
        (error(500), "answers with status 500; later the same command goes on"),
        ((307, {"Location": "http://127.0.0.1:1/v1"}, b""), "answers with status 307; later"),
        ((502, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>"),
         "answers with status 502; later"),
        ((200, {"Content-Type": "text/html"}, b"<html>Hello</html>"), "answers with no chat"),
        ((200, JSON, completion(NORMAL)[2][:90]), "answers with no chat completion; check"),
        ((200, JSON, b'{"choices": [{"text": "normal"}]}'), "answers with no chat completion"),
        ((200, JSON, b'["normal"]'), "answers with no chat completion"),
        ((200, JSON, b'{"choices": []}'), "answers without a choice; later"),
    ],
)  # fmt: skip
def test_a_failure_is_one_sentence_without_the_key(monkeypatch, caplog, answer, message):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    with answering(answer) as (url, requests), pytest.raises(InputError) as raised:
        ask(url)
    assert str(raised.value).startswith(f"127.0.0.1 {message}")
    assert SECRET not in str(raised.value) + caplog.text
    assert len(requests) == 1


def test_a_busy_endpoint_is_asked_again_when_it_says(monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    busy = error(429, "rate_limit_exceeded", **{"Retry-After": "7"})
    with answering(busy, busy, completion(NORMAL)) as (url, requests):
        assert ask(url, retries=2).why == ""
    assert [wait for wait in waits if wait >= 1] == [7, 7]
    assert len(requests) == 3
    with answering(busy) as (url, requests), pytest.raises(InputError, match="status 429"):
        ask(url, retries=2)
    assert len(requests) == 3


def test_who_does_not_answer_is_named():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(InputError, match=r"^127\.0\.0\.1 did not answer in time; later"):
            ask(f"http://127.0.0.1:{port}/v1", seconds=0.1)
    with pytest.raises(InputError, match="cannot be reached, or hangs up; check --base-url"):
        ask(f"http://127.0.0.1:{free_port()}/v1")
    with hanging_up() as (port, calls):
        with pytest.raises(InputError, match="cannot be reached, or hangs up"):
            ask(f"http://127.0.0.1:{port}/v1")
        assert len(calls) == 1


def test_the_address_is_that_of_the_option_or_the_environment(monkeypatch):
    assert address(None) == Address("https://api.openai.com/v1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert address(None).is_here
    assert not address("https://example.org/v1").is_here
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.openai.azure.com")
    with pytest.raises(InputError, match="OPENAI_BASE_URL and AZURE_OPENAI_ENDPOINT name two"):
        address(None)
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert address(None) == Address("https://mine.openai.azure.com", is_azure=True)


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "ftp://example.org",
        "https://me:word@example.org/v1",  # pragma: allowlist secret
        "https://example.org/v1?key=word",
        "http://[",
        "https://example.org:port/v1",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InputError, match=r"^--base-url must be http") as raised:
        address(url)
    assert "word" not in str(raised.value)


def test_images_do_not_go_over_http():
    with pytest.raises(InputError, match="is http, which sends images in the clear"):
        address("http://example.org/v1")


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match="^OPENAI_API_KEY is not set; export it, with a key of"):
        Endpoint(address(None), "gpt", 0, 1)


def test_a_key_that_no_header_can_hold_is_named(monkeypatch):
    for key in ("word\n", "w\xf6rd", "two words"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(InputError, match="^OPENAI_API_KEY holds a space") as raised:
            Endpoint(address(None), "gpt", 0, 1)
        assert key.strip() not in str(raised.value)


def test_azure_is_asked_by_deployment_and_version(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", SECRET)
    with answering(completion(NORMAL)) as (url, requests):
        where = Address(url.removesuffix("/v1"), is_azure=True)
        with pytest.raises(InputError, match="^OPENAI_API_VERSION is not set; export it"):
            Endpoint(where, "mine", 0, 5)
        monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
        assert Endpoint(where, "mine", 0, 5)(REQUEST).why == ""
    assert requests[0][1]["api-key"] == SECRET


def test_azure_takes_a_login_where_there_is_no_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    scopes = []

    def provider(_credential, scope):
        scopes.append(scope)
        return lambda: "token"

    monkeypatch.setattr(endpoint, "get_bearer_token_provider", provider)
    with answering(completion(NORMAL)) as (url, requests):
        where = Address(url.removesuffix("/v1"), is_azure=True)
        assert Endpoint(where, "mine", 0, 5)(REQUEST).why == ""
        assert requests[0][1]["authorization"] == "Bearer token"
        assert re.fullmatch(r"https://[a-z.]+/\.default", *scopes)

        def refuses():
            raise ClientAuthenticationError(f"no {SECRET}")

        monkeypatch.setattr(endpoint, "get_bearer_token_provider", lambda *_: refuses)
        with pytest.raises(InputError, match=r"^there is no login for 127\.0\.0\.1; `az login`"):
            Endpoint(where, "mine", 0, 5)(REQUEST)
