"""What /v1/similar and /v1/defects answer, with a memory, with another's, and without Qdrant."""

import base64
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_model
from memory_drawings import tiny_embedder, write_found

from blackswan.data.images import decode_image, encode_png
from blackswan.errors import InputError
from blackswan.evaluation.model import Model
from blackswan.evaluation.regions import find_regions
from blackswan.export.runtime import Graph
from blackswan.memory.defects import describe
from blackswan.memory.vote import Params

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("qdrant_client")

from starlette.testclient import TestClient

from blackswan.memory.defect_memory import DefectMemory, index
from blackswan.memory.store import KEY, URL
from blackswan.serving.app import HASH, Service
from blackswan.serving.detectors import Loaded
from blackswan.serving.similar import add_memory

VOTE = Params(neighbors=3, temperature=0.05, alpha=0.1)


def photo(kind, seed):
    """A flat photo of 16 pixels with a line or a square on it."""
    rng = np.random.default_rng(seed)
    image = np.full((16, 16, 3), 100, np.uint8)
    left, top = rng.integers(3, 9, 2)
    if kind == "scratch":
        image[top, left : left + 4] = 255
    else:
        image[top : top + 2, left : left + 2] = 0
    return image


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("memory"), make_model()
    embedder, defects = tiny_embedder(folder / "weights"), []
    for kind in ("scratch", "hole"):
        for seed in range(6):
            image = photo(kind, seed)
            anomaly_map = model.score_prepared([image]).anomaly_maps[0]
            [region, *_] = find_regions(anomaly_map, 1, 1)
            defects.append(describe(embedder, image, region, type=kind, name=f"{kind}{seed}",
                                    camera="left" if seed < 3 else "right"))  # fmt: skip
    return write_found(folder / "found", embedder, defects, "abc.dir")


@pytest.fixture
def folder(found, tmp_path, monkeypatch):
    for name in (URL, KEY):
        monkeypatch.delenv(name, raising=False)
    index(found, tmp_path / "memory", VOTE)
    return tmp_path / "memory"


@pytest.fixture
def opened():
    """Return a function that opens a client with a memory, which is closed at the end."""
    services = []

    def open_client(folder, hash_="abc.dir"):
        service = Service(Loaded(make_model(), "here", hash_, "3"))
        services.append(service)
        add_memory(service, folder)
        return TestClient(service.app)

    yield open_client
    for service in services:
        service.close()


def body(image, **asked):
    return {"images": [{"image": base64.b64encode(encode_png(image)).decode()}], **asked}


def test_neighbours_and_a_type(opened, folder):
    client = opened(folder)
    response = client.post("/v1/similar", json=body(photo("scratch", 50), neighbors=2, regions=1))
    assert response.status_code == 200
    assert response.headers[HASH] == "abc.dir"
    answer = response.json()
    assert answer["memory"]["available"] is True
    assert answer["memory"]["detail"] is None
    [result] = answer["results"]
    assert result["verdict"] == "anomalous"
    [region] = result["regions"]
    assert region["likeliest"] == "scratch"
    assert region["confidence"] > 0.5
    assert len(region["neighbors"]) == 2
    first, second = region["neighbors"]
    assert (first["type"], first["camera"] in ("left", "right")) == ("scratch", True)
    assert first["similarity"] >= second["similarity"]
    assert decode_image(base64.b64decode(first["crop"])).ndim == 3
    by_form = client.post(
        "/v1/similar", files={"images": ("image 0", encode_png(photo("scratch", 50)))},
        data={"neighbors": "2", "regions": "1"},
    )  # fmt: skip
    assert by_form.json() == answer


def test_filters(opened, folder):
    client = opened(folder)
    for asked, key in (({"type": "hole"}, "type"), ({"camera": "left"}, "camera")):
        answer = client.post("/v1/similar", json=body(photo("scratch", 50), **asked)).json()
        values = {each[key] for each in answer["results"][0]["regions"][0]["neighbors"]}
        assert values == {*asked.values()}


def test_a_normal_image_has_nothing_to_look_up(opened, folder):
    answer = opened(folder).post("/v1/similar", json=body(np.full((16, 16, 3), 100, np.uint8)))
    [result] = answer.json()["results"]
    assert (result["verdict"], result["regions"]) == ("normal", [])


def test_a_confirmed_defect_joins(opened, folder):
    client = opened(folder)
    image = photo("hole", 50)
    image[15, 15] = 101  # no two photos are the same
    given = {"image": body(image)["images"][0]["image"], "type": "dent", "name": "new.png"}
    first, again = (client.post("/v1/defects", json=given).json() for _ in range(2))
    assert (first["new"], again["new"], again["changed"]) == (True, False, False)
    assert first["id"] == again["id"]
    regions = client.post("/v1/similar", json=body(image)).json()["results"][0]["regions"]
    neighbor = regions[0]["neighbors"][0]
    assert (neighbor["id"], neighbor["type"], neighbor["image"]) == (first["id"], "dent", "new.png")


@pytest.mark.parametrize(
    ("path", "changed", "said"),
    [
        ("similar", {"colour": 1}, "colour: Extra inputs"),
        ("similar", {"neighbors": 0}, "neighbors: Input should be greater"),
        ("similar", {"since": "soon"}, "since 'soon' is no date"),
        ("defects", {"type": ""}, "type: String should have at least 1"),
        ("defects", {"date": "soon"}, "date 'soon' is no date"),
        ("defects", {"region": 19}, "image 0 has 1 regions above the threshold of the map, none"),
    ],
)
def test_a_wrong_request_is_refused(opened, folder, path, changed, said):
    image = body(photo("hole", 0))
    if path == "defects":
        image = {"image": image["images"][0]["image"], "type": "hole"}
    response = opened(folder).post(f"/v1/{path}", json=image | changed)
    assert (response.status_code, response.json()["detail"][: len(said)]) == (400, said)


def test_scoring_goes_on_without_qdrant(opened, folder, monkeypatch):
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    client = opened(folder)
    answer = client.post("/v1/similar", json=body(photo("hole", 50))).json()
    assert answer["memory"]["available"] is False
    assert answer["memory"]["detail"].startswith("Qdrant at http://127.0.0.1:9 does not answer")
    [result] = answer["results"]
    assert result["verdict"] == "anomalous"
    assert result["regions"][0]["neighbors"] == []
    given = {"image": body(photo("hole", 50))["images"][0]["image"], "type": "hole"}
    response = client.post("/v1/defects", json=given)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


def test_another_detector_is_said_and_its_defects_do_not_join(opened, folder):
    client = opened(folder, "other.dir")
    answer = client.post("/v1/similar", json=body(photo("hole", 50))).json()
    assert (
        "found by another detector or version of it, padim (abc.dir)"
        in (answer["memory"]["detail"])
    )
    assert answer["results"][0]["regions"][0]["neighbors"]
    given = {"image": body(photo("hole", 50))["images"][0]["image"], "type": "hole"}
    assert client.post("/v1/defects", json=given).status_code == 409


def test_no_memory_ends_the_start(opened, tmp_path):
    with pytest.raises(InputError, match="is no memory"):
        opened(tmp_path)


def test_both_routes_are_described(opened, folder):
    paths = opened(folder).get("/openapi.json").json()["paths"]
    for path in ("/v1/similar", "/v1/defects"):
        assert "application/json" in paths[path]["post"]["requestBody"]["content"]


def test_an_export_finds_the_memory_of_its_detector(folder):
    exported = Graph.__new__(Graph)
    exported.exported = SimpleNamespace(detector_md5="abc.dir")
    model = make_model()
    loaded = Loaded(Model(exported, model.facts, model.normal_scores), "here", "ex.dir", None)
    assert loaded.fitted == "abc.dir" == DefectMemory(folder).facts.origin.detector_hash
    grown = Loaded(make_model(), "here", "grown.dir", None, added=("x",), base="abc.dir")
    assert (grown.fitted, Loaded(make_model(), "here", "new.dir", None).fitted) == (
        "abc.dir", "new.dir",
    )  # fmt: skip
