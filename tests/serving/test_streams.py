"""A clip with three anomalies of a second each raises three alarms; regions do not count."""

import json

import av
import numpy as np
import pytest
from conftest import make_model
from typer.testing import CliRunner

from blackswan import cli
from blackswan.data.images import read_image
from blackswan.data.regions import Ignored, Regions
from blackswan.errors import InputError
from blackswan.evaluation.model import save
from blackswan.serving.alarms import Outbox, Window
from blackswan.serving.cameras import Shot
from blackswan.serving.detectors import Loaded
from blackswan.serving.streams import Watcher

RATE, ANOMALIES = 25, (2.0, 5.0, 8.0)  # frames a second, and when something lies there for one


def draw(time, flicker=False, rng=None):
    """Return a grey scene in which light wanders, with a bright thing where one is."""
    picture = np.full((64, 64, 3), 100 + 10 * np.sin(time), np.float64)
    if any(start <= time < start + 1 for start in ANOMALIES) or flicker:
        picture[24:40, 24:40] = 250
    return np.clip(picture + rng.normal(0, 1, (64, 64, 1)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Ten seconds, in which single frames flicker beside the three anomalies."""
    path, rng = tmp_path_factory.mktemp("clip") / "camera.mp4", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width = stream.height = 64
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for number in range(10 * RATE):
            picture = draw(number / RATE, number in (20, 21, 105, 180), rng)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def folder(tmp_path):
    made = make_model()
    for name in ("fitted", "model"):
        (tmp_path / name).mkdir()
    made.detector.save(tmp_path / "fitted")
    save(tmp_path / "model", tmp_path / "fitted", made.facts, made.normal_scores)
    return tmp_path / "model"


def alarms(out):
    return [json.loads(path.read_text()) for path in sorted((out / "alarms").glob("*/alarm.json"))]


def test_three_anomalies_raise_three_alarms_and_no_other(clip, folder, tmp_path):
    out = tmp_path / "streams"
    command = ["watch", str(clip), str(folder), "--camera", "line1", "--out", str(out)]
    done = CliRunner().invoke(cli.app, command)
    assert done.output.endswith(f"3 alarms in 250 frames; see {out / 'line1'}\n")
    found = alarms(out / "line1")
    for alarm, start in zip(found, ANOMALIES, strict=True):
        assert (alarm["began"], alarm["raised"]) == pytest.approx((start, start + 3 / RATE))
        assert alarm["ended"] == pytest.approx(start + 1 + 3 / RATE)
        assert alarm["score"] > alarm["threshold"] == 5.0
        pictures = out / "line1/alarms" / alarm["alarm"]
        assert read_image(pictures / "frame.png").shape == (64, 64, 3)
        assert read_image(pictures / "overlay.png").shape == (16, 16, 3)
    state = json.loads((out / "line1/state.json").read_text())
    assert (state["scored"], state["dropped"], state["alarms"], state["alarm"]) == (250, 0, 3, None)
    assert (state["not_delivered"], state["regions"], state["connected"]) == (0, None, False)


def watcher(tmp_path, ignore=None):
    ignored = None
    if ignore:
        regions = Regions(width=64, height=64, ignore=[ignore])
        ignored = Ignored(camera="line1", sha256="ab" * 32, regions=regions)
    loaded = Loaded(make_model(), "here", "abc.dir", None)
    return Watcher("line1", loaded, Window(1, 1, 0), tmp_path, ignored=ignored)


LEFT = [(0, 0), (31, 0), (31, 63), (0, 63)]


def test_what_lies_in_an_ignored_region_raises_nothing(tmp_path):
    quiet, left, right = (np.full((64, 64, 3), 100, np.uint8) for _ in range(3))
    left[24:40, 8:24], right[24:40, 40:56] = 250, 250
    shots = [Shot(image, float(n)) for n, image in enumerate([quiet, left, right, quiet])]
    watching = watcher(tmp_path / "part", LEFT)
    watching.watch(iter(shots))
    (alarm,) = alarms(tmp_path / "part")
    assert (alarm["raised"], alarm["ended"]) == (2.0, 3.0)
    assert alarm["regions"] == "ab" * 32
    everything = watcher(tmp_path / "whole")
    everything.watch(iter(shots))
    (alarm,) = alarms(tmp_path / "whole")
    assert (alarm["raised"], alarm["ended"]) == (1.0, 3.0)


def test_regions_that_leave_nothing_are_refused(tmp_path):
    watching = watcher(tmp_path, [(0, 0), (63, 0), (63, 63), (0, 63)])
    with pytest.raises(InputError, match="leave nothing of the image; make them smaller"):
        watching.watch(iter([Shot(np.zeros((64, 64, 3), np.uint8), 0.0)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "../x"], "--camera takes letters, digits"),
        (["--raise-at", "1", "--end-at", "1"], "choose end-at < raise-at <= of"),
        (["--webhook", "https://here"], "--webhook needs a secret to sign with"),
        (["--ignore", "regions.json"], "has no camera camera, but line1"),
    ],
)
def test_what_cannot_be_watched_is_said(clip, folder, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLACKSWAN_WEBHOOK_SECRET", raising=False)
    one = {"width": 64, "height": 64, "ignore": [LEFT]}
    (tmp_path / "regions.json").write_text(json.dumps({"cameras": {"line1": one}}))
    done = CliRunner().invoke(cli.app, ["watch", str(clip), str(folder), *options])
    assert done.exit_code == 1
    assert message in str(done.exception)


def test_the_service_shows_what_goes_on(clip, folder, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    from starlette.testclient import TestClient

    from blackswan.serving.app import Service

    seen = np.full((64, 64, 3), 100, np.uint8)
    seen[24:40, 24:40] = 250
    watcher(tmp_path / "streams/line1").watch(iter([Shot(seen, 0.0)]))
    loaded = Loaded(make_model(), "here", "abc.dir", None)
    service = Service(loaded, streams=tmp_path / "streams")
    client = TestClient(service.app)
    (stream,) = client.get("/v1/streams").json()["streams"]
    (alarm,) = stream["recent"]
    name = alarm["alarm"]
    assert (stream["alarm"], alarm["ended"]) == (None, 0.0)  # the watch is over
    assert (stream["camera"], stream["running"], stream["scored"]) == ("line1", True, 1)
    picture = client.get(f"/v1/streams/line1/alarms/{name}/frame.png")
    assert picture.content == (tmp_path / "streams/line1/alarms" / name / "frame.png").read_bytes()
    for path in ("line2/alarms/x", "line1/alarms/x", "%2e%2e/alarms/x"):
        assert client.get(f"/v1/streams/{path}/frame.png").status_code == 404
    service.close()
    assert Outbox(tmp_path / "streams/line1").pending() == []
