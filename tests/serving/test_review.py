"""Decisions over HTTP, and what a kill -9 leaves of them."""

import base64
import errno
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from conftest import make_model

from blackswan.data.decoding import decode_turned
from blackswan.data.images import encode_png
from blackswan.data.known import sha256_of
from blackswan.errors import InputError
from blackswan.evaluation import model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from blackswan.serving import bank
from blackswan.serving.app import Service
from blackswan.serving.decisions import Decisions
from blackswan.serving.detectors import Loaded


def photo(number=0, flagged=False):
    """Return the PNG of a flat photo, with specks where it is to be flagged."""
    pixels = np.full((16, 16, 3), 50 + number % 100, np.uint8)
    if flagged:
        pixels[6:9:2, 6:9:2] = 255
    return encode_png(pixels)


def body(content, user="anna", label="normal", seen=0, **other):
    image = {"image": base64.b64encode(content).decode()} if isinstance(content, bytes) else {}
    return {"user": user, "label": label, "seen": seen, "camera": "line1"} | image | other


@pytest.fixture
def client(tmp_path):
    decisions = Decisions(tmp_path / "kept")
    service = Service(Loaded(make_model(), "here", "abc.dir", "3"), decisions=decisions)
    client = TestClient(service.app)
    client.decisions = decisions
    yield client
    service.close()
    decisions.close()


def test_a_decision_holds_what_the_detector_said(client):
    content = photo(flagged=True)
    response = client.post("/v1/decisions", json=body(content, name="part.png", note="dust"))
    kept = response.json()
    assert response.status_code == 200
    assert response.headers["etag"] == '"1"'
    own = make_model().score([decode_turned(io.BytesIO(content), "", 8)[0]])
    assert kept["score"] == own.image_scores[0]
    assert {key: kept[key] for key in ("verdict", "label", "override", "user", "version")} == {
        "verdict": "anomalous", "label": "normal", "override": True, "user": "anna", "version": 1,
    }  # fmt: skip
    assert (kept["detector"], kept["detector_hash"]) == ("median_residual", "abc.dir")
    assert (kept["sha256"], kept["name"]) == (sha256_of(content), "part.png")
    listed = client.get("/v1/decisions", params={"camera": "line1", "day": kept["time"][:10]})
    assert listed.json() == {"decisions": [kept], "before": None}
    image = client.get(f"/v1/decisions/images/{kept['sha256']}")
    assert (image.content, image.headers["content-type"]) == (content, "image/png")


def test_the_second_of_two_reviewers_is_told_who_decided_what(client):
    content = photo(flagged=True)
    client.post("/v1/decisions", json=body(content, label="anomalous", defect="scratch"))
    late = client.post("/v1/decisions", json=body(content, user="ben"))
    problem = late.json()
    assert late.status_code == 409
    assert problem["detail"].startswith("anna decided anomalous (scratch) at 20")
    assert problem["detail"].endswith("look at it, and send seen: 1 to decide otherwise")
    assert problem["latest"]["version"] == 1
    again = body(None, user="ben", seen=1, sha256=sha256_of(content))
    assert client.post("/v1/decisions", json=again).json()["version"] == 2
    assert [one["user"] for one in client.get("/v1/decisions").json()["decisions"]] == [
        "ben", "anna",
    ]  # fmt: skip


def test_rates_on_request_and_for_prometheus(client):
    client.post("/v1/decisions", json=body(photo(1, flagged=True)))
    client.post("/v1/decisions", json=body(photo(2)))
    (rate,) = client.get("/v1/decisions/rates").json()["rates"]
    assert (rate["camera"], rate["decided"], rate["overrides"], rate["rate"]) == (
        "line1", 2, 1, 0.5,
    )  # fmt: skip
    labels = f'{{camera="line1",day="{rate["day"]}"}}'
    text = client.get("/metrics").text
    assert f"blackswan_override_rate{labels} 0.5" in text
    assert f"blackswan_decided_images{labels} 2.0" in text


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        ({"image": None}, "send either image or sha256"),
        ({"label": "good"}, "label: Input should be 'normal' or 'anomalous'"),
        ({"label": "normal", "defect": "dent"}, "what is normal has no defect"),
        ({"label": "anomalous", "add_to_bank": True}, "add_to_bank is for normal images alone"),
        ({"user": ""}, "user: "),
        ({"camera": "a/b"}, "camera: "),
        ({"image": None, "sha256": "0" * 64}, "no decision was kept of an image of this sha256"),
        ({"image": base64.b64encode(b"no image").decode()}, "the image "),
        ({"add_to_bank": True}, "median_residual has no memory bank"),
    ],
)
def test_what_is_no_decision_is_refused_and_not_kept(client, wrong, detail):
    response = client.post("/v1/decisions", json=body(photo()) | wrong)
    assert (response.status_code, detail in response.json()["detail"]) == (400, True)
    assert client.decisions.page(9) == []


def test_a_wrong_query_is_refused(client):
    response = client.get("/v1/decisions", params={"day": "monday"})
    assert response.status_code == 400
    assert response.json()["detail"].startswith("day: ")
    assert client.get(f"/v1/decisions/images/{'0' * 64}").status_code == 404


def test_a_full_disk_is_told(client, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(client.decisions, "_keep_image", full)
    response = client.post("/v1/decisions", json=body(photo()))
    assert response.status_code == 507
    assert response.json()["detail"] == (
        "the disk of the server is full and the decision is not kept; free some space on it, then "
        "decide again"
    )
    assert client.decisions.page(9) == []


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(errno.ENOSPC, "full"), 507, "free some space on it, then send the same again"),
        (InputError("another is served now"), 400, "as it was: another is served now"),
    ],
)
def test_a_decision_that_is_kept_and_no_bank_that_knows_it_are_told(
    client, monkeypatch, error, status, said
):
    def fail(*_):
        raise error

    monkeypatch.setattr(bank, "check", lambda _: None)
    monkeypatch.setattr(bank, "add", fail)
    asked = body(photo(), add_to_bank=True)
    response = client.post("/v1/decisions", json=asked)
    detail = response.json()["detail"]
    assert response.status_code == status
    assert (detail.startswith("the decision is kept"), detail.endswith(said)) == (True, True)
    assert "the memory bank is as it was" in detail
    assert [row.label for row in client.decisions.page(9)] == ["normal"]
    monkeypatch.setattr(bank, "add", lambda *_: True)
    again = client.post("/v1/decisions", json=asked).json()
    assert (again["version"], again["added_to_bank"]) == (1, True)


def test_openapi_shows_the_decisions(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {"get", "post"} <= paths["/v1/decisions"].keys()
    assert {"409", "507"} <= paths["/v1/decisions"]["post"]["responses"].keys()


@pytest.mark.slow
def test_a_kill_loses_no_decision_that_was_acknowledged(tmp_path):
    made = make_model()
    for name in ("fitted", "model", "kept"):
        (tmp_path / name).mkdir()
    made.detector.save(tmp_path / "fitted")
    model.save(tmp_path / "model", tmp_path / "fitted", made.facts, made.normal_scores)
    acknowledged, failed, remaining = [], threading.Event(), iter(range(200))
    turn = threading.Lock()

    def start():
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = ["serve", "model", "--port", str(port), "--decisions", "kept", "--watch", "0"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from blackswan.cli import app; app()", *command], cwd=tmp_path
        )
        url, ready = f"http://127.0.0.1:{port}", httpx.Client()
        for _ in range(900):
            try:
                if ready.get(f"{url}/ready").status_code == 200:
                    return process, url
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the service does not start")

    def override(url):
        client = httpx.Client(base_url=url, timeout=60)
        while not failed.is_set():
            with turn:
                number = next(remaining, None)
            if number is None:
                return
            content = photo(number, flagged=number >= 100)
            label = "normal" if number >= 100 else "anomalous"
            try:
                answer = client.post("/v1/decisions", json=body(content, label=label))
                assert answer.status_code == 200
                acknowledged.append(answer.json())
            except httpx.TransportError:
                failed.set()
            if len(acknowledged) == 120:
                os.kill(process.pid, signal.SIGKILL)

    process, url = start()
    threads = [threading.Thread(target=override, args=[url]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait() == -signal.SIGKILL
    assert 120 <= len(acknowledged) < 200
    process, url = start()
    kept = httpx.get(f"{url}/v1/decisions", params={"limit": 500}).json()["decisions"]
    process.terminate()
    process.wait()
    by_id = {one["id"]: one for one in kept}
    assert [one for one in acknowledged if by_id.get(one["id"]) != one] == []
    assert {one["override"] for one in acknowledged} == {True}
