"""Answers are logged in whole parts, by rows and by time, and none is lost in silence."""

import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from starlette.testclient import TestClient

from blackswan.data.images import encode_png
from blackswan.drift import log
from blackswan.drift.report import state_file
from blackswan.errors import InputError
from blackswan.outputs import write_json
from blackswan.serving import record
from blackswan.serving.app import Service
from blackswan.serving.detectors import Loaded
from blackswan.serving.record import Recorder

LOADED = Loaded(make_model(), "here", "abc.dir", None)


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def photo(level=100):
    return ("images", ("a.png", encode_png(np.full((16, 24, 3), level, np.uint8)), "image/png"))


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens a client whose answers are logged, closed at the end."""
    services = []

    def open_client(**sizes):
        recorder = Recorder(tmp_path / "log", **sizes)
        recorder.prepare(LOADED)
        services.append(Service(LOADED, recorder=recorder))
        client = TestClient(services[-1].app)
        client.recorder = recorder
        return client

    yield open_client
    for service in services:
        service.close()
        service.recorder.close()


def parts(client):
    return sorted((client.recorder.folder / "abc.dir").glob("[0-9]*.parquet"))


def lines(client):
    text = client.get("/metrics").text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines() if line.startswith("blackswan_")}  # fmt: skip


def test_every_answer_is_a_row(opened, tmp_path):
    client = opened()
    answered = client.post("/v1/score", files=[photo(), photo(30)], headers={"X-Camera": "line1"})
    (score, *_) = [result["image_score"] for result in answered.json()["results"]]
    body = encode_png(np.full((16, 24, 3), 100, np.uint8))
    headers = {"content-type": "image/png"}
    assert client.post("/v1/detect-anomalies", content=body, headers=headers).status_code == 200
    assert lines(client)['blackswan_log_records{state="waiting"}'] == 3
    client.recorder.close()
    (part,) = parts(client)
    table = pq.read_table(part)
    assert table.schema.equals(log.SCHEMA)
    rows = table.to_pylist()
    assert [row["camera"] for row in rows] == ["line1", "line1", ""]
    assert [(row["height"], row["width"]) for row in rows] == [(16, 24)] * 3
    assert rows[0]["image_score"] == score
    assert {row["detector_hash"] for row in rows} == {"abc.dir"}
    assert {row["verdict"] for row in rows} == {"normal"}
    assert {row["embedding"] for row in rows} == {None}  # no pipeline lies beside the detector
    assert (client.recorder.written, client.recorder.lost) == (3, 0)


def test_embeddings_are_summed_up_by_the_components_of_the_reference(opened, monkeypatch):
    client = opened()
    monkeypatch.setitem(client.recorder._components, "abc.dir", lambda values: values[:, :2])
    client.post("/v1/score", files=[photo(100), photo(30)])
    client.recorder.close()
    rows = pq.read_table(parts(client)[0]).to_pylist()
    assert [row["embedding"] for row in rows] == [[100, 100], [30, 30]]  # red and green


def test_parts_are_rolled_by_rows_and_by_time(opened):
    client = opened(part_rows=2, part_seconds=60)
    client.post("/v1/score", files=[photo()] * 5)
    until(lambda: len(parts(client)) == 2)
    assert [pq.read_metadata(part).num_rows for part in parts(client)] == [2, 2]
    client.recorder.close()
    assert [pq.read_metadata(part).num_rows for part in parts(client)] == [2, 2, 1]
    soon = opened(part_rows=100, part_seconds=0.01)
    soon.post("/v1/score", files=[photo()])
    until(lambda: len(parts(soon)) == 4)


def test_a_full_disk_stops_no_answer_and_what_is_lost_is_counted(opened, monkeypatch, caplog):
    client = opened(part_rows=2, part_seconds=0.02, most_rows=4)
    written = record.pq.write_table

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.pq, "write_table", full)
    for _ in range(6):
        assert client.post("/v1/score", files=[photo()]).status_code == 200
    counts = lines(client)
    assert counts['blackswan_log_records{state="lost"}'] == 2
    assert counts['blackswan_log_records{state="waiting"}'] == 4
    assert parts(client) == []
    until(lambda: "the log is not written" in caplog.text)
    monkeypatch.setattr(record.pq, "write_table", written)
    until(lambda: client.recorder.waiting == 0)
    assert (client.recorder.written, client.recorder.lost) == (4, 2)
    assert not [*client.recorder.folder.rglob(".*")]


def test_what_the_end_cannot_write_is_counted(opened, monkeypatch):
    client = opened()
    client.post("/v1/score", files=[photo()])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.pq, "write_table", full)
    client.recorder.close()
    assert client.recorder.lost == 1


def test_answers_of_two_detectors_lie_apart(opened):
    client = opened(part_rows=100)
    client.post("/v1/score", files=[photo()])
    client.recorder._rows.append(dict(client.recorder._rows[0], detector_hash="new.dir"))
    client.recorder.close()
    found = sorted(client.recorder.folder.glob("*/[0-9]*.parquet"))
    assert [path.parent.name for path in found] == ["abc.dir", "new.dir"]


def test_prometheus_is_told_what_the_last_report_said(opened):
    client = opened()
    assert not [line for line in lines(client) if line.startswith("blackswan_drift")]
    folder = client.recorder.folder / "abc.dir"
    end = "2026-03-01T00:00:10+00:00"
    write_json(state_file(folder, "line1"), {"camera": "line1", "page": True, "end": end})
    write_json(state_file(folder, ""), {"camera": "", "page": False, "end": end})
    state_file(folder, "broken").write_text("{")
    found = lines(client)
    assert found['blackswan_drift{camera="line1"}'] == 1
    assert found['blackswan_drift{camera=""}'] == 0
    assert found['blackswan_drift_newest_image_seconds{camera="line1"}'] == 1772323210
    assert 'blackswan_drift{camera="broken"}' not in found


def test_a_camera_has_a_plain_name(opened):
    refused = opened().post("/v1/score", files=[photo()], headers={"X-Camera": "../line"})
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("X-Camera takes letters, digits, _, . and -")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/log cannot be made; name another folder with --log"):
        Recorder(tmp_path / "file/log")
