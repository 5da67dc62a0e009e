"""A log is read, judged by the rule of params.yaml, and refused where it cannot be."""

import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT, make_model
from typer.testing import CliRunner

from blackswan import cli
from blackswan.drift import log, reference
from blackswan.drift.embedding import Components
from blackswan.drift.monitor import Params, examine
from blackswan.drift.reference import Reference
from blackswan.drift.report import report, state_file, states
from blackswan.errors import InputError
from blackswan.params import load_section
from blackswan.seeds import generator
from blackswan.tracking.runs import dvc_hash

HASH, BEGIN = "a.dir", datetime(2026, 3, 1, tzinfo=UTC)
RULE = {
    "seed": 0, "hours": 24, "every_seconds": None, "window": 20, "level": 0.02, "in_a_row": 2,
    "tests": ["kolmogorov_smirnov", "maximum_mean_discrepancy", "domain_classifier"],
    "cusum_images": 1000,
}  # fmt: skip


def answers(count=80, shift=0.0, begin=0.0, step=1.0, **columns):
    """Answers as a service logs them; the second half is shifted."""
    rng = generator(0, "answers", str(begin))
    rows = rng.standard_normal((count, 3))
    rows[count // 2 :] += shift
    return [
        {
            "time": BEGIN + timedelta(seconds=begin + step * number), "camera": "line1",
            "detector": "padim", "detector_hash": HASH, "height": 48, "width": 64,
            "image_score": row[0], "p_value": 0.5, "threshold": 2.0,
            "verdict": "anomalous" if row[0] > 2 else "normal", "embedding": row[1:],
        } | columns
        for number, row in enumerate(rows)
    ]  # fmt: skip


def write(folder, rows, hash_=HASH):
    path = folder / hash_ / log.part_name(rows[0]["time"], 1, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, log.SCHEMA), path)
    return path


def usual(count=60, seconds=0.0):
    rows = generator(0, "reference").standard_normal((count, 3))
    return Reference(rows, seconds, Components(np.zeros(2), np.ones(2), np.eye(2)))


def look(folder, camera=None, found=None, **changes):
    params = Params(**(RULE | changes))
    parts = log.parts_of(folder, HASH)
    return examine(log.read(parts, HASH, params.hours), camera, found or usual(), params)


def test_nobody_is_paged_where_the_log_is_like_the_reference(tmp_path):
    write(tmp_path, answers())
    found = look(tmp_path)
    assert (found.camera, found.answers, found.counted, found.left_out) == ("line1", 80, 80, 0)
    assert (found.reference, found.components) == (60, 2)
    assert [len(window.rows) for window in found.windows] == [20] * 4
    assert not found.drift
    assert not found.page
    assert found.why == "the newest windows look like held-out normal images"


def test_a_drift_that_stays_pages_a_person_and_one_that_passes_does_not(tmp_path):
    write(tmp_path, answers(shift=2))
    found = look(tmp_path, cusum_images=None)
    assert [window.drift for window in found.windows] == [False, False, True, True]
    assert found.page
    assert found.why.endswith("the newest 2 windows of 20 images differ from held-out normal ones")
    write(tmp_path, answers(count=20, begin=80))
    later = look(tmp_path, cusum_images=None)
    assert [window.drift for window in later.windows] == [False, False, True, True, False]
    assert not later.page
    assert not look(tmp_path, in_a_row=3, cusum_images=None).page


def test_the_cusum_pages_alone(tmp_path):
    write(tmp_path, answers(shift=2))
    found = look(tmp_path, in_a_row=1, level=1e-30, tests=["kolmogorov_smirnov"])
    assert not found.drift
    assert found.page
    assert re.fullmatch(r"the CUSUM reported \d+ times since 2026-03-01T00:01:00\+00:00", found.why)
    assert all(time >= BEGIN + timedelta(seconds=40)
               for window in found.windows for time in window.reports)  # fmt: skip


def test_near_copies_count_once_and_old_answers_not_at_all(tmp_path):
    write(tmp_path, answers(count=100, step=0.5))
    write(tmp_path, answers(count=100, begin=4000, step=0.5))
    every = look(tmp_path)
    thinned = look(tmp_path, found=usual(seconds=1.0))
    assert (every.answers, every.counted) == (200, 200)
    assert (thinned.answers, thinned.counted, thinned.every_seconds) == (200, 100, 1)
    assert look(tmp_path, every_seconds=2).counted == 50
    newest = look(tmp_path, hours=1)
    assert newest.answers == 100
    assert newest.begin == BEGIN + timedelta(seconds=4000)


def test_answers_without_an_embedding_are_counted_and_left_out(tmp_path):
    write(tmp_path, answers(count=40) + answers(count=5, begin=60, embedding=None))
    found = look(tmp_path)
    assert (found.counted, found.left_out, len(found.windows)) == (45, 5, 2)
    scores = look(tmp_path, found=Reference(usual().rows[:, :1], 0.0))
    assert (scores.left_out, scores.components, scores.windows[0].rows.shape) == (0, 0, (20, 1))


def test_what_cannot_be_judged_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="none is no folder; name the one of `blackswan serve"):
        look(tmp_path / "none")
    with pytest.raises(InputError, match="holds no answer yet; send images to `blackswan serve"):
        look(tmp_path)
    write(tmp_path / "other", answers(detector_hash="b.dir"), "b.dir")
    with pytest.raises(InputError, match="holds answers of b.dir and none of the detector, whose"):
        look(tmp_path / "other")
    write(tmp_path / "moved", answers(detector_hash="b.dir"))
    with pytest.raises(InputError, match="holds answers of another version of the detector than"):
        look(tmp_path / "moved")
    write(tmp_path / "few", answers(count=19))
    with pytest.raises(InputError, match="the log has 19 answers that count and a window takes 20"):
        look(tmp_path / "few")
    same = {"image_score": 1.0, "embedding": [0.0, 0.0]}
    write(tmp_path / "hangs", answers(**same))
    with pytest.raises(InputError, match="all 20 images from 2026-03-01T00:00:00.* score the same"):
        look(tmp_path / "hangs")
    write(tmp_path / "sizes", [*answers(), *answers(begin=90, width=32)])
    with pytest.raises(InputError, match="images of 32 x 48 and of 64 x 48 pixels, which no camer"):
        look(tmp_path / "sizes")
    write(tmp_path / "nan", answers(image_score=np.nan))
    with pytest.raises(InputError, match="scores are not finite"):
        look(tmp_path / "nan")
    write(tmp_path / "shape", answers(embedding=[1.0]))
    with pytest.raises(InputError, match="has 1 components and the reference 2; delete"):
        look(tmp_path / "shape")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more"])
def test_a_broken_part_is_named(tmp_path, content):
    write(tmp_path, answers())
    broken = tmp_path / HASH / log.part_name(BEGIN + timedelta(seconds=10), 1, 1)
    broken.write_bytes(content)
    with pytest.raises(InputError, match=f"{broken.name} cannot be read as a part of a log"):
        look(tmp_path)


def test_a_part_of_another_form_is_named(tmp_path):
    path = write(tmp_path, answers())
    pq.write_table(pa.table({"time": [BEGIN]}), path)
    with pytest.raises(InputError, match="cannot be read as a part of a log"):
        look(tmp_path)


def test_several_cameras_are_judged_one_at_a_time(tmp_path):
    write(tmp_path, [*answers(), *answers(begin=90, camera="", width=32)])
    with pytest.raises(InputError, match=r"the cameras '' \(no name\), line1; choose one with --c"):
        look(tmp_path)
    with pytest.raises(InputError, match="no answer of camera line2; it has '' .*, line1"):
        look(tmp_path, camera="line2")
    assert look(tmp_path, camera="line1").answers == 80
    assert look(tmp_path, camera="").answers == 80


def test_a_page_alone_and_the_figures_that_prometheus_is_told(tmp_path):
    write(tmp_path / "log", answers(shift=2, camera="<line>"))
    reference.save(tmp_path / "log" / HASH, usual())
    page = tmp_path / "out/drift.html"

    def made():
        found = report(
            tmp_path / "log", make_model(), tmp_path / "data/detectors/padim", HASH,
            Params(**RULE), None, page,
        )  # fmt: skip
        return found, page.read_bytes(), state_file(tmp_path / "log" / HASH, "<line>").read_bytes()

    found, text, figures = made()
    assert made()[1:] == (text, figures)  # the same bytes again
    assert found.page
    html = text.decode()
    assert "A person is paged" in html
    assert "data:image/webp;base64," in html
    assert "http" not in html
    assert "<line>" not in html
    content = json.loads(figures)
    assert content["page"] is True
    assert content["detector_hash"] == HASH
    assert [window["drift"] for window in content["windows"]] == [False, False, True, True]
    assert content["windows"][0]["p_values"].keys() == {*RULE["tests"]}
    assert states(tmp_path / "log", HASH) == [
        {"camera": "<line>", "page": True, "end": "2026-03-01T00:01:19+00:00"}
    ]


def test_the_command_tells_by_its_exit_code_whether_a_person_is_paged(tmp_path, monkeypatch):
    detector = tmp_path / "padim"
    detector.mkdir()
    (detector / "model.json").write_text("{}")
    hash_ = dvc_hash(detector)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "load", lambda _: make_model())
    params = {"monitor": RULE | {"tests": ["kolmogorov_smirnov"]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    reference.save(tmp_path / "log" / hash_, usual())

    def invoke():
        return CliRunner().invoke(cli.app, ["drift-report", "log", "--detector", "padim"])

    refused = invoke()
    assert refused.exit_code == 1
    assert str(refused.exception).startswith("error: log holds no answer yet; send images to")
    write(tmp_path / "log", answers(detector_hash=hash_), hash_)
    quiet = invoke()
    assert (quiet.exit_code, quiet.stdout[:7]) == (0, "no page")
    write(tmp_path / "log", answers(begin=80, shift=3, detector_hash=hash_), hash_)
    paged = invoke()
    assert (paged.exit_code, paged.stdout[:5]) == (3, "page:")
    assert (tmp_path / "drift.html").exists()


def test_the_rule_of_params_yaml_holds_together(tmp_path):
    params = load_section(Params, "monitor", ROOT / "params.yaml")
    assert params.test_level == pytest.approx(0.02 / 3)
    block = yaml.safe_load((ROOT / "params.yaml").read_text())["monitor"]
    file = tmp_path / "params.yaml"
    for changes, said in [
        ({"level": 0.001}, "199 permutations give no p-value below 0.005; raise level to 0.015"),
        ({"window": 5}, "monitor.window = 5"),
        ({"tests": []}, "monitor.tests = "),
        ({"tests": ["student"]}, "monitor.tests.0 = 'student'"),
        ({"windows": 5}, "monitor.windows is not a known key; did you mean window?"),
    ]:
        file.write_text(yaml.safe_dump({"monitor": block | changes}))
        with pytest.raises(InputError, match=re.escape(said)):
            load_section(Params, "monitor", file)
