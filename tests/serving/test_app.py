"""What the service answers on a tiny detector, and how it refuses."""

import base64
import io
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from conftest import make_model
from PIL import Image

from blackswan.data.images import encode_png, read_image
from blackswan.data.regions import Ignored, Regions
from blackswan.errors import InputError
from blackswan.evaluation.model import Model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from blackswan.serving.app import HASH, Service
from blackswan.serving.detectors import Loaded
from blackswan.serving.limits import Limits
from blackswan.tracking.contract import IMAGES, OUTPUTS

DETECTOR = {"name": "median_residual", "hash": "abc.dir", "version": "3", "source": "here"}


def open_client(key=None, **limits):
    """Return a client of a service of its own."""
    service = Service(Loaded(make_model(), "here", "abc.dir", "3"), Limits(**limits), key)
    client = TestClient(service.app)
    client.service = service
    return client


@pytest.fixture(scope="module")
def client():
    client = open_client()
    yield client
    client.service.close()


@pytest.fixture
def limited():
    """Return a function that opens a client, which is closed at the end."""
    opened = []

    def open_limited(**settings):
        opened.append(open_client(**settings))
        return opened[-1]

    yield open_limited
    for client in opened:
        client.service.close()


def encoded(content):
    return base64.b64encode(content).decode()


def forms(paths):
    return [("images", (path.name, path.read_bytes(), "image/png")) for path in paths]


def refusal(response):
    """Return status and sentence of an answer that refuses."""
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == content["error_code"] == response.status_code
    assert content["type"] == "about:blank"
    assert content["detail"] == content["message"]
    assert "\n" not in content["detail"]
    return response.status_code, content["detail"]


def test_several_files_are_judged_as_the_model_judges(client, photos):
    paths = sorted(photos.rglob("*.png"))
    response = client.post("/v1/score", files=forms(paths))
    assert response.status_code == 200
    assert response.headers[HASH] == "abc.dir"
    answer, own = response.json(), make_model().score([read_image(path) for path in paths])
    assert answer["detector"] == DETECTOR
    results = answer["results"]
    assert [result["name"] for result in results] == [path.name for path in paths]
    assert [result["image_score"] for result in results] == own.image_scores.tolist()
    assert [result["p_value"] for result in results] == own.p_values.tolist()
    assert {result["threshold"] for result in results} == {5.0}
    verdicts = [result["verdict"] for result in results]
    assert [n for n, verdict in enumerate(verdicts) if verdict == "anomalous"] == [6, 8]
    assert [result["confidence"] > 0.5 for result in results] == own.flagged.tolist()
    assert {(result["heatmap"], result["regions"]) for result in results} == {(None, None)}


def test_base64_and_files_are_answered_alike(client, photos):
    path = photos / "1/3.png"
    by_file = client.post("/v1/score", files=forms([path]), data={"regions": "2"})
    picture = {"image": encoded(path.read_bytes()), "name": path.name}
    by_json = client.post("/v1/score", json={"images": [picture], "regions": 2})
    assert by_file.status_code == 200
    assert by_file.json() == by_json.json()


def test_a_heatmap_and_regions_come_on_request(client):
    photo = np.full((32, 64, 3), 100, np.uint8)  # the detector sees it as 16 x 16
    photo[8:10, 24:28] = 255
    body = {"images": [{"image": encoded(encode_png(photo))}], "heatmap": True, "regions": 5}
    (result,) = client.post("/v1/score", json=body).json()["results"]
    assert (result["height"], result["width"]) == (32, 64)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["heatmap"]))))
    assert picture.shape == (16, 16, 3)
    region = result["regions"][0]
    assert region["peak"] == pytest.approx(result["image_score"])
    box = region["box"]
    assert box["left"] <= 24
    assert box["left"] + box["width"] >= 28
    assert box["top"] <= 8
    assert box["top"] + box["height"] >= 10
    # of 256 pixels that were judged, each of which is 2 x 4 of the photo
    assert region["area_share"] * 256 <= box["width"] * box["height"] / 8
    x, y = np.transpose(region["polygon"])
    assert box["left"] <= x.min() <= x.max() <= box["left"] + box["width"]
    assert box["top"] <= y.min() <= y.max() <= box["top"] + box["height"]


def test_lookouts_shape(client, photos):
    flagged = client.post(
        "/v1/detect-anomalies",
        content=(photos / "1/3.png").read_bytes(),
        headers={"Content-Type": "image/png"},
    ).json()["DetectAnomalyResult"]
    assert flagged["Source"] == {"Type": "direct"}
    assert flagged["IsAnomalous"] is True
    assert 0.5 < flagged["Confidence"] <= 1
    background, anomaly = flagged["Anomalies"]
    assert (background["Name"], anomaly["Name"]) == ("background", "anomaly")
    shares = [each["PixelAnomaly"]["TotalPercentageArea"] for each in (background, anomaly)]
    assert sum(shares) == pytest.approx(1)
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(flagged["AnomalyMask"]))))
    assert mask.shape == (16, 16, 3)
    assert (mask != 255).any(axis=2).mean() == shares[1] > 0
    normal = client.post(
        "/v1/detect-anomalies",
        content=(photos / "0/0.png").read_bytes(),
        headers={"Content-Type": "image/png"},
    ).json()["DetectAnomalyResult"]
    assert (normal["IsAnomalous"], normal["Anomalies"]) == (False, [])
    assert normal["Confidence"] > 0.5
    assert "AnomalyMask" not in normal


def test_dominos_form(client, photos, monkeypatch):
    monkeypatch.setenv(IMAGES, str(photos))
    relative = client.post("/model", json={"data": {"image": "1/3.png"}})
    assert relative.json()["is_anomalous"] is True
    assert relative.json()["confidence"] > 0.5
    assert relative.json().keys() == {"is_anomalous", "confidence"}
    absolute = client.post("/model", json={"data": {"image": str(photos / "1/3.png")}})
    assert absolute.json() == relative.json()
    (photos / "inside.png").symlink_to(photos / "0/0.png")
    normal = client.post("/model", json={"data": {"image": "inside.png"}}).json()
    assert normal["is_anomalous"] is False


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../params.yaml", "path of data.image names no file of"),
        ("/etc/passwd", "path of data.image names no file of"),
        ("link.png", "path of data.image names no file of"),
        ("http://127.0.0.1:9/a.png", "path of data.image names no file of"),
        ("file:///etc/passwd", "path of data.image names no file of"),
        ("ring", "path of data.image names no file of"),
        ("a\0b", "path of data.image names no file of"),
        ("none.png", "none.png does not exist"),
        ("1", "1 is no file; name an image"),
        ("pipe", "pipe is no file; name an image"),
    ],
)
def test_paths_lead_nowhere_else(client, photos, monkeypatch, path, said):
    monkeypatch.setenv(IMAGES, str(photos))
    (photos / "link.png").symlink_to("/etc/hostname")
    (photos / "ring").symlink_to("ring")
    os.mkfifo(photos / "pipe")
    status, sentence = refusal(client.post("/model", json={"data": {"image": path}}))
    assert (status, sentence[: len(said)]) == (400, said)


def test_the_forms_of_mlflow(client, photos):
    pictures = [encoded(path.read_bytes()) for path in sorted(photos.glob("1/*.png"))[:2]]
    bodies = [
        {"dataframe_records": [{"image": picture} for picture in pictures]},
        {"dataframe_split": {"columns": ["image"], "data": [[each] for each in pictures]}},
        {"instances": [{"image": picture} for picture in pictures]},
        {"inputs": {"image": pictures}},
        {"inputs": [{"image": picture} for picture in pictures]},
    ]
    answers = [client.post("/invocations", json=body | {"params": {"regions": 1}}).json()
               for body in bodies]  # fmt: skip
    assert answers == answers[:1] * 5
    (predictions,) = answers[0].values()
    assert [[*line] for line in predictions] == [[*OUTPUTS]] * 2
    assert [line["verdict"] for line in predictions] == ["normal", "anomalous"]
    assert len(predictions[1]["regions"]) == 1


def picture(mode="RGB", kind="png", size=(16, 16), **settings):
    content = io.BytesIO()
    Image.new(mode, size).save(content, kind, **settings)
    return content.getvalue()


def animation():
    content = io.BytesIO()
    frames = [Image.new("L", (16, 16), colour) for colour in (0, 99)]
    frames[0].save(content, "gif", save_all=True, append_images=frames[1:])
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no image", "a.png is empty, corrupt or not a JPEG"),
        (b"", "a.png is empty, corrupt or not a JPEG"),
        (picture()[:50], "a.png"),
        (picture("1", size=(10_000, 10_000)), "a.png has 10000 x 10000 pixels, the limit is"),
        (animation(), "a.png is empty, corrupt or not a JPEG"),
    ],
)
def test_what_is_no_image_is_named(client, content, said):
    files = [("images", ("good.png", picture())), ("images", ("a.png", content))]
    status, sentence = refusal(client.post("/v1/score", files=files))
    assert (status, sentence[: len(said)]) == (400, said)


@pytest.mark.parametrize(
    "content",
    [picture("CMYK", "jpeg"), picture("I;16"), picture("RGBA"), picture("LA"), picture("P")],
)
def test_other_kinds_of_pixels_are_read(client, content):
    response = client.post("/v1/score", files={"images": ("a", content)})
    assert response.json()["results"][0]["verdict"] == "normal"


def test_a_turned_photo_is_set_upright(client):
    turned = Image.Exif()
    turned[274] = 6
    content = picture(kind="jpeg", size=(40, 20), exif=turned)
    (result,) = client.post("/v1/score", files={"a": ("a", content)}).json()["results"]
    assert (result["height"], result["width"]) == (40, 20)


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400, "the request"),
        ({"json": {"images": []}}, 400, "images: List should have at least 1 item"),
        ({"json": {"image": "a"}}, 400, "images: Field required"),
        ({"json": {"images": [{"image": "%%"}]}}, 400, "image of image 0 is not base64"),
        ({"json": {"images": [{"image": 5}]}}, 400, "images.0.image: Input should be a valid str"),
        ({"json": {"images": [{"image": ""}], "regions": 101}}, 400, "regions: Input should be"),
        ({"json": {"images": [{"image": ""}], "url": "http://a"}}, 400, "url: Extra inputs"),
        ({"data": {"a": "b"}}, 415, "send images as multipart/form-data"),
        ({"files": {"a": ("a", b"a")}, "data": {"colour": "1"}}, 400, "params.colour: Extra"),
        (
            {"content": b"a", "headers": {"Content-Type": "multipart/form-data"}},
            400, "the form cannot be read",
        ),
        (
            {"content": b"a", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            400, "the form cannot be read",
        ),
        ({"files": [("a", (None, b"a"))]}, 400, "the form has no file"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_one_sentence(client, request_, status, said):
    found, sentence = refusal(client.post("/v1/score", **request_))
    assert (found, sentence[: len(said)]) == (status, said)


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"[]", b"5", b"{}", b'{"inputs": 5}', b'{"inputs": [1], "instances": []}',
        b'{"instances": [5]}', b'{"dataframe_split": []}', b'{"dataframe_split": {"columns": 5}}',
        b'{"dataframe_records": [{"image": "aa"}], "params": 5}', b"[" * 100_000,
        b'{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}', b'{"inputs": {"image": {}}}',
    ],
)  # fmt: skip
def test_what_mlflow_would_not_take_is_refused(client, content):
    response = client.post(
        "/invocations", content=content, headers={"Content-Type": "application/json"}
    )
    assert refusal(response)[0] == 400


def test_probes_and_facts(client):
    for path in ("/ping", "/health", "/ready"):
        assert client.get(path).status_code == 200
    assert client.get("/version").json()["detector"] == DETECTOR
    (facts,) = client.get("/v1/detectors").json()["detectors"]
    assert facts == DETECTOR | {
        "alpha": 0.2, "threshold": 5.0, "threshold_from": "4 images", "data_sha256": "0" * 64,
        "added_normals": 0, "added_to": None, "cameras": [],
    }  # fmt: skip
    assert refusal(client.get("/none")) == (
        404, "GET /none is not offered; see /openapi.json",
    )  # fmt: skip
    assert refusal(client.get("/v1/score"))[0] == 405


def test_openapi_has_examples(client):
    described = client.get("/openapi.json").json()
    assert {
        "/v1/score", "/v1/detect-anomalies", "/model", "/invocations", "/v1/detectors", "/metrics",
        "/ping", "/health", "/ready", "/version",
    } <= described["paths"].keys()  # fmt: skip
    body = described["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert client.post("/v1/score", json=body["application/json"]["example"]).status_code == 200
    forms_of_mlflow = described["paths"]["/invocations"]["post"]["requestBody"]["content"]
    for example in forms_of_mlflow["application/json"]["examples"].values():
        assert client.post("/invocations", json=example["value"]).status_code == 200


def test_metrics_count(limited, photos):
    client = limited()
    client.post("/v1/score", files=forms(sorted(photos.glob("1/*.png"))))
    client.get("/none")
    lines = client.get("/metrics").text.splitlines()
    assert 'blackswan_images_total{verdict="normal"} 3.0' in lines
    assert 'blackswan_images_total{verdict="anomalous"} 2.0' in lines
    assert 'blackswan_requests_total{route="/v1/score",status="200"} 1.0' in lines
    assert 'blackswan_requests_total{route="other",status="404"} 1.0' in lines
    assert 'blackswan_detector{hash="abc.dir",name="median_residual"} 1.0' in lines
    assert "blackswan_waiting_images 0.0" in lines


def test_the_key_is_asked_for(limited):
    client = limited(key="secret")
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic secret"}):
        response = client.get("/version", headers=headers)
        assert refusal(response)[0] == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
    other = {"Authorization": "Bearer of-the-gateway", "X-API-Key": "secret"}
    for headers in ({"X-API-Key": "secret"}, {"Authorization": "Bearer secret"}, other):
        assert client.get("/version", headers=headers).status_code == 200
    assert client.get("/ready").status_code == 200


def test_limits_of_bytes_files_and_pixels(limited):
    client = limited(body_bytes=2000, files=3, pixels=300)
    too_large = client.post("/v1/score", files={"a": ("a", b"a" * 3000)})
    assert refusal(too_large) == (
        413, "the request has more than 2,000 bytes; send fewer at a time",
    )  # fmt: skip

    def pieces():
        for _ in range(5):
            yield b"a" * 1000

    assert refusal(client.post("/v1/score", content=pieces()))[0] == 413  # without a length
    many = client.post("/v1/score", files=[("a", ("a", picture()))] * 4)
    assert refusal(many)[0] == 413
    status, sentence = refusal(client.post("/v1/score", files={"a": ("b", picture(size=(20, 20)))}))
    assert (status, sentence) == (
        400, "b has 20 x 20 pixels, the limit is 300; scale it down",
    )  # fmt: skip
    body = {"instances": [{"image": encoded(picture())}] * 4}
    assert refusal(client.post("/invocations", json=body))[0] == 413
    plain = {"Content-Type": "text/plain"}  # as a page of another site may send it unasked
    assert refusal(client.post("/invocations", content=json.dumps(body), headers=plain))[0] == 415


@pytest.fixture(scope="module")
def with_regions():
    regions = Regions(width=16, height=16, ignore=[[(0, 0), (7, 0), (7, 15), (0, 15)]])
    nothing = Regions(width=16, height=16, ignore=[])
    cameras = {"line1": regions, "line2": nothing}
    ignored = {
        name: Ignored(camera=name, sha256="ab" * 32, regions=each) for name, each in cameras.items()
    }
    service = Service(Loaded(make_model(), "here", "abc.dir", "3"), ignored=ignored)
    yield TestClient(service.app)
    service.close()


def specks():
    """A photo, twice as large as the detector sees it, with something in its left half."""
    photo = np.full((32, 32, 3), 100, np.uint8)
    photo[8:12, 4:8] = 255
    return encode_png(photo)


def test_regions_of_the_camera_that_a_request_names_do_not_count(with_regions):
    def ask(**fields):
        return with_regions.post("/v1/score", files={"images": ("a.png", specks())}, data=fields)

    [whole], [left], [empty] = (
        ask(**fields).json()["results"] for fields in ({}, {"camera": "line1"}, {"camera": "line2"})
    )
    assert (whole["verdict"], whole["ignored"]) == ("anomalous", [])
    assert left["verdict"] == "normal"
    assert left["ignored"] == [
        {
            "camera": "line1", "sha256": "ab" * 32,
            "polygons": [[[0.5, 0.5], [14.5, 0.5], [14.5, 30.5], [0.5, 30.5]]],
        }
    ]  # fmt: skip
    assert empty == whole
    body = {"images": [{"image": encoded(specks()), "name": "a.png"}], "camera": "line1"}
    assert with_regions.post("/v1/score", json=body).json()["results"] == [left]
    refused = ask(camera="line3")
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("the service has no camera line3, but line1, line2;")
    [facts] = with_regions.get("/v1/detectors").json()["detectors"]
    assert facts["cameras"] == ["line1", "line2"]


def test_a_camera_counts_for_nothing_where_the_service_knows_no_regions(client):
    files = {"images": ("a.png", specks())}
    answers = [client.post("/v1/score", files=files, data=data) for data in ({}, {"camera": "x"})]
    assert answers[0].json() == answers[1].json()


def test_a_detector_that_cannot_leave_regions_out_is_not_served():
    class Surer:
        def score(self, images):
            found = make_model().detector.score(images)
            return replace(found, image_scores=found.image_scores + 1)

    model = make_model()
    regions = Regions(width=16, height=16, ignore=[[(0, 0), (7, 0), (7, 15)]])
    ignored = Ignored(camera="line1", sha256="ab" * 32, regions=regions)
    loaded = Loaded(Model(Surer(), model.facts, model.normal_scores), "here", "abc.dir", "3")
    with pytest.raises(InputError, match="regions cannot be ignored: this detector"):
        Service(loaded, ignored={"line1": ignored})
