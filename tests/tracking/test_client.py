"""The client of an endpoint, against a server on loopback: it answers well, badly or not at all."""

import base64
import json
import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import make_model
from PIL import Image
from servers import hanging_up, serving

from blackswan.data.images import decode_image, write_png
from blackswan.data.sources.video import Sampling
from blackswan.errors import InputError
from blackswan.reporting.verdicts import list_source, open_images, write_verdicts
from blackswan.tracking.client import TOKEN, Endpoint, Patience, probability
from blackswan.tracking.contract import answer

ALL = Sampling(every_n_seconds=0, start_s=0, end_s=None, max_frames=None)
QUICK = Patience(attempts=3, seconds=5, answer_seconds=0.3, longest_pause=0.01)


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)


def ok(content):
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def contract(body, _headers, model=make_model()):  # noqa: B008
    """Answer as a served model does."""
    rows = pd.DataFrame(json.loads(body)["dataframe_records"])
    return ok({"predictions": answer(model, rows).to_dict("records")})


def images_of(source):
    return open_images(source, list_source(source), ALL)


def ask(photos, answer_post, **options):
    """Ask for one image."""
    with serving(answer_post=answer_post) as url:
        endpoint = Endpoint(url, **{"patience": QUICK, **options})
        (first, *_) = images_of(photos)
        return endpoint.score_prepared([endpoint.read(first)])


def test_verdicts_are_those_of_the_model_itself(photos, tmp_path):
    write_verdicts(make_model(), images_of(photos), tmp_path / "own", {}, page=False)
    with serving(answer_post=contract) as url:
        endpoint = Endpoint(url, make_model())
        write_verdicts(endpoint, images_of(photos), tmp_path / "served", {}, page=False)
    own, served = (tmp_path / name / "verdicts.parquet" for name in ("own", "served"))
    assert own.read_bytes() == served.read_bytes()


def test_files_are_sent_as_they_are_and_other_kinds_as_png(photos, tmp_path):
    sent = []

    def keep(body, headers):
        sent.append(base64.b64decode(json.loads(body)["dataframe_records"][0]["image"]))
        return contract(body, headers)

    ask(photos, keep)
    assert sent == [sorted(photos.rglob("*.png"))[0].read_bytes()]
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    (tmp_path / "bmp").mkdir()
    Image.fromarray(image).save(tmp_path / "bmp/a.bmp")
    ask(tmp_path / "bmp", keep)
    assert sent[1].startswith(b"\x89PNG")
    assert (decode_image(sent[1]) == image).all()


def test_an_image_that_no_request_can_hold_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2100, 2100, 3), dtype=np.uint8)
    write_png(tmp_path / "parts/large.png", noise)
    (item,) = images_of(tmp_path / "parts")
    with pytest.raises(
        InputError, match=r"^large takes more than the 11,999,250 bytes|^large\.png"
    ):
        Endpoint("http://127.0.0.1:1").read(item)


def test_a_score_that_differs_is_named(photos):
    def other(body, headers):
        status, kind, content = contract(body, headers)
        found = json.loads(content)
        found["predictions"][0]["image_score"] += 1e-5
        return status, kind, json.dumps(found).encode()

    assert len(ask(photos, other).image_scores) == 1
    with pytest.raises(InputError, match=r"gives .*0\.png the score .* the model here .*; serve"):
        ask(photos, other, local=make_model())


@pytest.mark.parametrize("form", [lambda pair: pair, lambda pair: {"logits": pair}])
def test_raw_logits_become_a_probability(photos, form):
    def logits(_body, _headers):
        return ok({"predictions": [form([-1.0, 7.0])]})

    with pytest.raises(InputError, match="logits alone, which have no threshold; name the folder"):
        ask(photos, logits)

    class Classifier:
        def score(self, images):
            model = make_model().score(images)
            return replace(model, image_scores=np.array([probability(-1.0, 7.0)], np.float32))

    local = Classifier()
    local.facts, local.normal_scores = make_model().facts, make_model().normal_scores
    found = ask(photos, logits, local=local)
    assert found.image_scores[0] == np.float32(1 / (1 + np.exp(-8)))
    assert found.threshold == 5.0
    assert not found.flagged[0]
    assert found.probabilities


def test_too_many_requests_are_repeated_as_late_as_asked(photos, monkeypatch):
    pauses, answers = [], iter([429, 503, 200])
    monkeypatch.setattr("blackswan.tracking.client.time.sleep", pauses.append)

    def busy(body, headers):
        status = next(answers)
        return contract(body, headers) if status == 200 else (status, {"Retry-After": "7"}, b"")

    patience = Patience(attempts=3, seconds=60, longest_pause=20)
    assert len(ask(photos, busy, patience=patience).image_scores) == 1
    assert pauses == [7, 7]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, r"answers 0/0\.png with status 400 \(row 0 is no image\); mend what it names"),
        (401, r"with status 401.*; set DATABRICKS_TOKEN to a token of this workspace"),
        (403, r"with status 403.*; the token may not query this endpoint"),
        (404, r"with status 404.*; check the name of the endpoint"),
        (413, r"with status 413.*; the limit of the endpoint is smaller"),
        (429, r"with status 429.*, after 3 attempts; see that it runs"),
        (503, r"with status 503.*, after 3 attempts; see that it runs"),
    ],
)
def test_errors_of_the_endpoint_are_one_sentence(photos, status, said):
    asked = []

    def refuse(_body, _headers):
        asked.append(status)
        message = "Failed to predict data 'x'. \nError: row 0 is no image\n  File secret.py"
        content = {"message": message, "stack_trace": "Traceback (most recent call last)"}
        return status, {"Retry-After": "soon"}, json.dumps(content).encode()

    with pytest.raises(InputError, match=said) as raised:
        ask(photos, refuse)
    assert "Traceback" not in str(raised.value)
    assert "secret.py" not in str(raised.value)
    assert len(asked) == (3 if status in (429, 503) else 1)


def test_a_secret_that_the_endpoint_says_is_not_repeated(photos):
    def refuse(_body, _headers):
        return 403, {}, json.dumps({"message": "token: dapi0123456789abcdef is wrong"}).encode()

    with pytest.raises(InputError) as raised:
        ask(photos, refuse)
    assert "dapi" not in str(raised.value)


def test_an_endpoint_that_hangs_or_hangs_up_ends_in_one_sentence(photos):
    (item, *_) = images_of(photos)
    with hanging_up() as (port, calls):
        endpoint = Endpoint(f"http://127.0.0.1:{port}", patience=QUICK)
        with pytest.raises(InputError, match=r"does not answer .*, after 3 attempts"):
            endpoint.score_prepared([endpoint.read(item)])
        assert len(calls) == 3
    free = threading.Event()
    try:
        with pytest.raises(InputError, match=r"does not answer .*, after 3 attempts"):
            ask(photos, lambda *_: (free.wait(30), ok({}))[1])
    finally:
        free.set()


def test_half_an_answer_is_asked_for_again(photos):
    asked = []

    def half(body, headers):
        asked.append(1)
        status, kind, content = contract(body, headers)
        if len(asked) == 1:  # says more than it sends
            return status, {"Content-Length": str(2 * len(content)), "Connection": "close"}, content
        return status, kind, content

    patience = replace(QUICK, answer_seconds=1)
    assert len(ask(photos, half, patience=patience).image_scores) == 1
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "answers no JSON; check that it is a serving endpoint"),
        (b"[]", "answers without one prediction for the one image"),
        (b'{"predictions": []}', "answers without one prediction for the one image"),
        (b'{"predictions": [{"score": 1}]}', "neither with an image_score nor with two logits"),
        (b'{"predictions": [[1, 2, 3]]}', "neither with an image_score nor with two logits"),
        (b'{"predictions": [["a", "b"]]}', "neither with an image_score nor with two logits"),
        (b'{"predictions": [[NaN, 1]]}', "neither with an image_score nor with two logits"),
        (b'{"predictions": [{"image_score": 1}]}', "without score, p_value, threshold or verdict"),
    ],
)
def test_answers_of_another_kind_are_refused(photos, content, said):
    with pytest.raises(InputError, match=said):
        ask(photos, lambda *_: (200, {}, content))


def test_the_token_is_sent_to_loopback_or_over_tls_alone(photos, monkeypatch):
    monkeypatch.setenv(TOKEN, "a-token")
    seen = []

    def keep(body, headers):
        seen.append(headers.get("Authorization"))
        return contract(body, headers)

    ask(photos, keep)
    assert seen == ["Bearer a-token"]
    with pytest.raises(InputError, match="http would send DATABRICKS_TOKEN in the clear"):
        Endpoint("http://adb-1.azuredatabricks.net/serving-endpoints/a")


@pytest.mark.parametrize("url", ["", "endpoint", "ftp://a/b", "https://word@host/a", "http://"])
def test_what_is_no_url_is_refused_without_being_repeated(url):
    with pytest.raises(InputError, match="the URL of the endpoint must be http") as raised:
        Endpoint(url)
    assert "word" not in str(raised.value)


def test_the_path_may_end_in_invocations_or_not():
    base = "http://127.0.0.1:5001"
    assert {Endpoint(f"{base}{end}").url for end in ("", "/", "/invocations", "/invocations/")} == {
        f"{base}/invocations"
    }
