"""Indexing twice changes nothing; what is asked, filtered, confirmed, and what does not fit."""

import shutil
import socket
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from memory_drawings import draw, tiny_embedder, write_found
from servers import serving

from blackswan.errors import InputError
from blackswan.memory.defects import describe
from blackswan.memory.vote import Params

pytest.importorskip("qdrant_client")

from qdrant_client import QdrantClient

from blackswan.memory.defect_memory import DefectMemory, Indexed, index
from blackswan.memory.store import COLLECTION, KEY, URL, Filters, Store, UnavailableError

VOTE = Params(neighbors=3, temperature=0.05, alpha=0.1)


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    for name in (URL, KEY, COLLECTION):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(found, tmp_path):
    index(found, tmp_path / "memory", VOTE)
    return tmp_path / "memory"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def types(memory, kind, seed=100, **filters):
    """Return how often each type is among the neighbours of a new defect."""
    image, region = draw(kind, seed)
    [likeness] = memory.similar(image, [region], Filters(**filters), 16)
    return Counter(neighbor.facts["type"] for neighbor in likeness.neighbors)


def test_indexing_twice_changes_nothing(found, tmp_path):
    assert index(found, tmp_path / "memory", VOTE) == Indexed(16, 0, 16)
    before = files(tmp_path / "memory")
    assert index(found, tmp_path / "memory", VOTE) == Indexed(0, 0, 16)
    assert files(tmp_path / "memory") == before
    index(found, tmp_path / "again", VOTE)
    assert files(tmp_path / "again") == before


def test_what_is_known_otherwise_is_corrected(found, folder):
    assert index(found, folder, VOTE, camera="left", date="2026-11-30") == Indexed(0, 16, 16)
    memory = DefectMemory(folder)
    assert types(memory, "hole", camera="left") == {"hole": 8, "scratch": 8}
    assert types(memory, "hole", camera="right") == {}


def test_what_a_person_corrected_stays_when_it_is_indexed_again(found, folder, defects):
    DefectMemory(folder).add([replace(defects[0], type="dent", camera="left", date="2026-11-30")])
    assert index(found, folder, VOTE) == Indexed(0, 0, 16)
    assert index(found, folder, VOTE, camera="right") == Indexed(0, 16, 16)
    [kept] = DefectMemory(folder).store.known(defects[:1]).values()
    assert (kept["type"], kept["camera"], kept["date"]) == ("dent", "right", "2026-11-30")


def test_a_filter_shows_others_and_does_not_vote(folder):
    image, region = draw("hole", 100)
    [likeness] = DefectMemory(folder).similar(image, [region], Filters(type="scratch"))
    assert {neighbor.facts["type"] for neighbor in likeness.neighbors} == {"scratch"}
    assert likeness.vote.likeliest == "hole"


def test_a_folder_of_something_else_becomes_no_memory(found, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labels.csv").write_text("mine")
    with pytest.raises(InputError, match="data holds other files and no"):
        index(found, tmp_path / "data", VOTE)
    assert (tmp_path / "data/labels.csv").read_text() == "mine"


def test_the_nearest_are_of_the_same_type(folder):
    memory = DefectMemory(folder)
    for kind in ("scratch", "hole"):
        image, region = draw(kind, 100)
        [likeness] = memory.similar(image, [region], most=2)
        assert [each.facts["type"] for each in likeness.neighbors] == [kind, kind]
        first, second = (neighbor.similarity for neighbor in likeness.neighbors)
        assert 1 >= first >= second > 0
        assert likeness.vote.likeliest == kind
        assert likeness.vote.confidence > 0.8


def test_a_known_defect_is_found_again(folder, defects):
    memory = DefectMemory(folder)
    image, region = draw("scratch", 3)
    [likeness] = memory.similar(image, [region])
    assert likeness.neighbors[0].id == defects[3].id
    assert likeness.neighbors[0].similarity == pytest.approx(1, abs=1e-5)


def test_filters(found, folder, defects):
    dated = [replace(one, date=f"2026-11-{day + 1:02d}") for day, one in enumerate(defects)]
    DefectMemory(folder).add(dated)
    memory = DefectMemory(folder)
    assert types(memory, "hole") == {"hole": 8, "scratch": 8}
    assert types(memory, "hole", type="scratch") == {"scratch": 8}
    assert types(memory, "hole", source="line0") == {"hole": 4, "scratch": 4}
    assert types(memory, "hole", source="line0", type="hole") == {"hole": 4}
    assert types(memory, "hole", since="2026-11-08") == {"hole": 8, "scratch": 1}
    assert types(memory, "hole", until="2026-11-09") == {"hole": 1, "scratch": 8}
    assert types(memory, "hole", since="2026-11-08", until="2026-11-08") == {"scratch": 1}
    with pytest.raises(InputError, match="since 'today' is no date; write year"):
        Filters(since="today")


def test_what_looks_like_nothing_is_unknown(folder):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    _, region = draw("hole", 0)
    [likeness] = DefectMemory(folder).similar(image, [region])
    assert likeness.vote.type is None
    assert likeness.vote.why_unknown == "no remembered defect is similar enough"
    assert len(likeness.neighbors) == 5


def test_a_confirmed_defect_joins_and_stays(folder, embedder):
    memory = DefectMemory(folder)
    image, region = draw("hole", 100)
    stain = describe(embedder, image, region, type="stain", name="new.png")
    assert memory.add([stain]) == (1, 0)
    assert memory.add([stain]) == (0, 0)
    for asked in (memory, DefectMemory(folder)):
        [likeness] = asked.similar(image, [region])
        assert likeness.neighbors[0].facts["type"] == "stain"
    assert memory.add([replace(stain, type="dirt")]) == (0, 1)
    reopened = DefectMemory(folder)
    assert reopened.store.count() == 17
    assert reopened.similar(image, [region])[0].neighbors[0].facts["type"] == "dirt"


def test_no_defect_at_all(tmp_path, embedder):
    found = write_found(tmp_path / "found", embedder, [])
    assert index(found, tmp_path / "memory", VOTE) == Indexed(0, 0, 0)
    [likeness] = DefectMemory(tmp_path / "memory").similar(*draw_as_list("hole"))
    assert (likeness.neighbors, likeness.vote.type) == ([], None)
    assert likeness.vote.why_unknown == "there is no neighbour"


def draw_as_list(kind):
    image, region = draw(kind, 100)
    return image, [region]


def test_defects_of_another_detector_or_embedder_are_refused(folder, tmp_path, embedder, defects):
    before = files(folder)
    found = write_found(tmp_path / "newer", embedder, defects, "2.dir")
    with pytest.raises(InputError, match=r"found by padim \(2.dir\) and those of .* \(1.dir\)"):
        index(found, folder, VOTE)
    other = tiny_embedder(tmp_path / "weights")
    other.hash = "another"
    found = write_found(tmp_path / "other", other, defects)
    with pytest.raises(InputError, match="were embedded otherwise than those of"):
        index(found, folder, VOTE)
    assert files(folder) == before


def test_another_embedder_in_the_folder_is_refused(folder):
    path = folder / "embedder/embedder.json"
    path.write_text(path.read_text().replace('"context": 0.5', '"context": 1.0'))
    with pytest.raises(InputError, match="is not the embedder that the defects of"):
        DefectMemory(folder)


def test_what_is_no_memory_is_named(tmp_path, found, folder):
    with pytest.raises(InputError, match="nothing is no memory; write one by `blackswan index`"):
        DefectMemory(tmp_path / "nothing")
    with pytest.raises(InputError, match="defects.parquet is no file of defects"):
        index(tmp_path / "nothing", tmp_path / "memory", VOTE)
    (folder / "defects/000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="000001.parquet cannot be read"):
        DefectMemory(folder)
    shutil.rmtree(folder / "embedder")
    with pytest.raises(InputError, match=r"embedder.json is missing"):
        DefectMemory(folder)


def test_vectors_of_others_in_a_collection_are_refused(defects):
    store = Store(48, "1.dir")
    store.prepare("one")
    store.put(defects[:1], "one")
    store.check("one")
    with pytest.raises(InputError, match="are of another embedder, one, not two; name another"):
        store.check("two")
    store.dimensions = 47
    with pytest.raises(InputError, match="have 48 dimensions and the embedder of this memory mak"):
        store.check("one")


def test_a_store_of_many_pages_is_read_whole(defects, monkeypatch):
    monkeypatch.setattr("blackswan.memory.store.PAGE", 5)
    store = Store(48, "1.dir")
    store.prepare("one")
    store.put(defects, "one")
    pages = list(store.pages())
    assert [len(types) for _, types, _ in pages] == [5, 5, 5, 1]
    found = [line for page in pages for line in zip(*page, strict=True)]
    for one in defects:
        [near] = [line for line in found if np.allclose(line[0], one.embedding, atol=1e-6)]
        assert near[1:] == (one.type, one.group)


def test_defects_of_several_detectors_lie_in_one_collection_of_a_server(defects, monkeypatch):
    """The embedded engine plays the server: it is asked what a server would be."""
    engine = QdrantClient(":memory:")
    monkeypatch.setenv(URL, "http://127.0.0.1:6333")
    stores = [Store(48, name) for name in ("1.dir", "2.dir")]
    for store in stores:
        store.client = engine
        store.prepare("one")
    stores[0].put(defects, "one")
    stores[1].put([replace(defects[0], type="dent")], "one")
    assert [store.count() for store in stores] == [16, 1]
    near = [store.nearest(defects[0].embedding, 3, Filters()) for store in stores]
    assert [[each.id for each in found][:1] for found in near] == [[defects[0].id]] * 2
    assert [[each.facts["type"] for each in found] for found in near][1] == ["dent"]
    assert {each.facts["type"] for each in near[0]} == {"scratch"}
    assert [types for _, types, _ in stores[1].pages()] == [["dent"]]
    assert [len(store.known(defects)) for store in stores] == [16, 1]


def test_a_server_that_is_down(folder, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv(URL, f"http://127.0.0.1:{port}")
    memory = DefectMemory(folder)  # opens all the same
    said = rf"Qdrant at http://127.0.0.1:{port} does not answer \(ConnectError\); start it, or mend"
    for ask in (memory.prepare, lambda: memory.similar(*draw_as_list("hole")), memory.store.count):
        with pytest.raises(UnavailableError, match=said):
            ask()


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, InputError, "refuses the key; set BLACKSWAN_QDRANT_KEY to one that may read"),
        (403, InputError, "refuses the key"),
        (404, InputError, "has no blackswan_defects; fill it by `blackswan index`"),
        (400, InputError, r"refuses what was asked \(status 400\)"),
        (503, UnavailableError, r"is not well \(status 503\); try later"),
    ],
)
def test_a_server_that_refuses(folder, monkeypatch, status, kind, said):
    asked = []

    def refuse(content, headers):
        asked.append(headers)
        return status, {"Content-Type": "application/json"}, b"{}"

    with serving(answer_post=refuse) as url:
        monkeypatch.setenv(URL, url)
        monkeypatch.setenv(KEY, "k3y")
        memory = DefectMemory(folder)
        with pytest.raises(kind, match=said):
            memory.similar(*draw_as_list("hole"))
    assert {name.lower(): value for name, value in asked[0].items()}["api-key"] == "k3y"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:6333", "BLACKSWAN_QDRANT_URL is no address; set it to one such as http://loc"),
        ("http://example.com:6333", "BLACKSWAN_QDRANT_KEY would go to .* unencrypted"),
    ],
)
def test_an_address_that_is_none(monkeypatch, url, said):
    monkeypatch.setenv(URL, url)
    monkeypatch.setenv(KEY, "k3y")
    with pytest.raises(InputError, match=said):
        Store(48, "1.dir")
