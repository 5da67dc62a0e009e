"""The page's files, the evaluation behind it, and the frames of a clip."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from conftest import draw_clip, make_model
from PIL import Image

from blackswan.data.dataset import Row, write_shards
from blackswan.data.images import encode_png
from blackswan.data.preprocessing import Preprocessing, Step

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from blackswan.serving import clips
from blackswan.serving.app import Service
from blackswan.serving.detectors import Folder, Loaded
from blackswan.serving.page import FILES, HERE
from blackswan.serving.pipeline import pipeline_of


@pytest.fixture
def pipeline(tmp_path):
    """What the pipeline would have written for make_model: three test images, one missed."""
    shape = np.full((16, 16, 3), 100, np.uint8)
    rows = [
        Row(
            f"frames/{name}.png",
            encode_png(shape + np.uint8(level)),
            None,
            label,
            defect,
            False,
            False,
            "",
            None,
        )
        for level, (name, label, defect) in enumerate(
            [("a", 0, ""), ("b", 1, "hole"), ("c", 1, "hole")]
        )
    ]
    preprocessing = Preprocessing(steps=[Step(crop="none", size=16)])
    (tmp_path / "data/dataset").mkdir(parents=True)
    write_shards(tmp_path / "data/dataset", "test", rows, 2, preprocessing)
    scores = tmp_path / "data/scores/tiny"
    scores.mkdir(parents=True)
    table = pd.DataFrame({"path": ["frames/c.png", "frames/a.png", "frames/b.png"]}).assign(
        label=[1, 0, 1], defect=["hole", "", "hole"], table="seen",
        image_score=[9.0, 2.0, 3.0], p_value=[0.2, 0.8, 0.6], flagged=[True, False, False],
    )  # fmt: skip
    table.to_parquet(scores / "scores.parquet")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/report.html").write_text("<p>report</p>")
    return pipeline_of(Folder(str(tmp_path / "data/detectors/tiny")))


@pytest.fixture
def client(pipeline):
    service = Service(Loaded(make_model(), "here", "abc.dir", None), pipeline=pipeline)
    yield TestClient(service.app)
    service.close()


def test_every_file_of_the_page_is_there_and_names_no_other_site(client):
    assert {name for name, _ in FILES.values()} == {path.name for path in HERE.iterdir()}
    for path, (name, kind) in FILES.items():
        response = client.get(f"/{path}")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in response.headers["content-security-policy"]
        addresses = set(re.findall(r"https?://[^\s\"')]+", (HERE / name).read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}


def test_every_name_that_the_script_looks_for_is_on_the_page():
    page, script = (HERE / "index.html").read_text(), (HERE / "page.js").read_text()
    looked_for = set(re.findall(r"\$\(\"([\w-]+)\"\)", script))
    there = set(re.findall(r'\bid="([\w-]+)"', page))
    drawn = {"layer", "outlines"}
    assert looked_for - drawn <= there
    assert len(re.findall(r'\bid="', page)) == len(there)


def test_the_evaluation_is_that_of_the_test_images(client, pipeline):
    answer = client.get("/v1/evaluation").json()
    assert (answer["threshold"], answer["alpha"]) == (5.0, 0.2)
    assert answer["images"][0] == {
        "number": 0, "path": "frames/c.png", "label": 1, "defect": "hole", "table": "seen",
        "image_score": 9.0, "p_value": 0.2,
    }  # fmt: skip
    shown = [client.get(f"/v1/evaluation/{number}").content for number in range(3)]
    pixels = [int(np.asarray(Image.open(io.BytesIO(content)))[0, 0, 0]) for content in shown]
    assert pixels == [102, 100, 101]
    for number in (-1, 3):
        refused = client.get(f"/v1/evaluation/{number}")
        assert refused.status_code == 404
        assert "has no image of this number" in refused.json()["detail"]
    assert client.get("/report").text == "<p>report</p>"


def test_scores_of_another_fit_are_not_shown(client, pipeline):
    path = pipeline.scores / "scores.parquet"
    pd.read_parquet(path).assign(flagged=True).to_parquet(path)
    refused = client.get("/v1/evaluation")
    assert refused.status_code == 400
    assert "is not of the detector that is served; run `dvc repro`" in refused.json()["detail"]
    path.write_bytes(b"PAR1")
    assert "cannot be read" in client.get("/v1/evaluation").json()["detail"]


def test_without_a_pipeline_it_says_so(tmp_path):
    assert pipeline_of(Folder(str(tmp_path / "detectors/tiny"))) is None
    service = Service(Loaded(make_model(), "here", "abc.dir", None))
    client = TestClient(service.app)
    for path in ("/v1/evaluation", "/v1/evaluation/0", "/report"):
        refused = client.get(path)
        assert refused.status_code == 404
        assert "no pipeline wrote this detector here" in refused.json()["detail"]
    service.close()


def test_the_page_needs_no_key_and_its_data_do(pipeline):
    service = Service(Loaded(make_model(), "here", "abc", None), key="secret", pipeline=pipeline)
    client = TestClient(service.app)
    assert {client.get(f"/{path}").status_code for path in FILES} == {200}
    for path in ("/v1/evaluation", "/v1/evaluation/0", "/report", "/openapi.json"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"X-API-Key": "secret"}).status_code == 200
    service.close()


def test_a_clip_comes_back_as_the_frames_that_the_pipeline_would_judge(client, drawn_clip):
    sent = drawn_clip.read_bytes()
    response = client.post("/v1/frames?every=1", content=sent, headers={"X-File-Name": "line.avi"})
    *frames, last = map(json.loads, response.text.splitlines())
    assert [frame["seconds"] for frame in frames] == [0, 1]
    assert [frame["name"] for frame in frames] == ["line.avi 0.00 s", "line.avi 1.00 s"]
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(frames[0]["image"]))))
    assert first.shape == (40, 48, 3)
    assert last == {"frames": 2, "detail": None}


def test_a_long_clip_is_cut_and_says_so(client, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "MOST", 3)
    sent = draw_clip(tmp_path / "clip.avi", frames=5).read_bytes()
    lines = client.post("/v1/frames?every=0", content=sent).text.splitlines()
    assert len(lines) == 4
    assert json.loads(lines[-1])["detail"].startswith("clip was cut after 3 frames")


@pytest.mark.parametrize("sent", [b"", b"no clip at all"])
def test_what_is_no_clip_is_refused(client, sent):
    name = {"X-File-Name": "../../a.mp4"}
    refused = client.post("/v1/frames", content=sent, headers=name)
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("a.mp4")
    for every in ("-1", "nan", "x"):
        assert client.post(f"/v1/frames?every={every}", content=sent).status_code == 400


def test_a_layer_lies_on_the_photo_where_the_map_does(client):
    photo = np.full((32, 64, 3), 100, np.uint8)  # the detector sees it as 16 x 16
    photo[8:10, 24:28] = 255
    body = {"images": [{"image": base64.b64encode(encode_png(photo)).decode()}], "layer": True}
    (result,) = client.post("/v1/score", json=body).json()["results"]
    layer = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["layer"]))))
    assert layer.shape == (32, 64, 4)
    opacity = layer[..., 3].astype(float)
    rows, columns = np.indices(opacity.shape)
    assert np.average(rows, weights=opacity) == pytest.approx(8.5, abs=1)
    assert np.average(columns, weights=opacity) == pytest.approx(25.5, abs=2)
    assert opacity[20:].max() == 0
