"""A threshold set anew keeps its promise on the drifted images, and costs what it costs."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import make_model

import blackswan
from blackswan.data.images import write_png
from blackswan.drift import recalibration
from blackswan.drift.confirmed import score_normals
from blackswan.drift.recalibration import Confirmed, recalibrated, recentred
from blackswan.errors import InputError
from blackswan.evaluation import model as models


@pytest.fixture
def folder(tmp_path):
    """A model of the baseline, alpha 0.2, as a folder."""
    model = make_model()
    (tmp_path / "fit").mkdir()
    model.detector.save(tmp_path / "fit")
    (tmp_path / "model").mkdir()
    models.save(tmp_path / "model", tmp_path / "fit", model.facts, model.normal_scores)
    return tmp_path / "model"


def noisy(folder, count=9, size=16, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        image = rng.normal(100, 8, (size, size, 3)).clip(0, 255).astype(np.uint8)
        write_png(folder / f"{number}.png", image)
    return folder


def confirmed(scores):
    return Confirmed(np.array(scores, float), np.array(scores, float) * 2, "0" * 64)


def test_threshold_p_values_and_colours_are_those_of_the_new_images():
    new = recalibrated(make_model(), confirmed([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    assert new.facts.threshold == 80  # the 8th of 9: alpha 0.2
    assert (new.facts.heatmap.threshold, new.facts.heatmap.top) == (
        160,
        3200,
    )  # 20 times, as before
    assert new.facts.threshold_from == "9 confirmed normal images, alpha 0.2"
    assert [part.tolist() for part in new.normal_scores] == [list(range(10, 100, 10))]
    assert new.facts.data_sha256 == make_model().facts.data_sha256


def test_the_rate_of_false_alarms_is_alpha_again_whatever_the_drift():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(500):
        drifted = rng.gamma(3, 2, 150) + 40  # far above the old threshold of 5
        new = recalibrated(make_model(), confirmed(drifted[:50]))
        rates.append((drifted[50:] > new.facts.threshold).mean())
    # floor(0.2 * 51) of 51 p-values are alarms
    assert np.mean(rates) == pytest.approx(10 / 51, abs=3 * np.std(rates) / np.sqrt(500))


def test_a_new_version_is_written_and_the_old_one_stays(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    model = blackswan.load(folder)
    found = score_normals(model, noisy(tmp_path / "normals"))
    new = recalibrated(model, found)
    recalibration.write(tmp_path / "model-2", folder, new, found)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    loaded = blackswan.load(tmp_path / "model-2")
    assert loaded.facts == new.facts
    assert loaded.normal_scores[0].tolist() == found.image_scores.tolist()
    told = json.loads((tmp_path / "model-2/recalibration.json").read_text())
    assert told["normal_images"] == 9
    assert told["flagged_before"] == (found.image_scores > 5).sum()
    assert told["threshold"]["before"] == 5
    assert told["from"] == models.fingerprint([folder / models.FACTS, folder / models.NORMALS])
    with pytest.raises(InputError, match=r"model-2 exists; name another folder with --out"):
        recalibration.write(tmp_path / "model-2", folder, new, found)


@pytest.mark.parametrize(
    ("count", "sizes", "message"),
    [
        (0, [16], r"holds no normal image; alpha = 0.2 needs 4, add them"),
        (3, [16], r"holds 3 normal images and alpha = 0.2 needs 4; add some"),
        (3, [16, 24], r"images of 16 x 16 and of 24 x 24 pixels; name a folder with those of one"),
    ],
)
def test_what_the_images_cannot_support_is_refused(folder, tmp_path, count, sizes, message):
    for size in sizes:
        (tmp_path / f"normals/{size}").mkdir(parents=True)
        noisy(tmp_path / f"normals/{size}", count, size)
    if not count:
        (tmp_path / "normals/16").rmdir()
    with pytest.raises(InputError, match=message):
        score_normals(blackswan.load(folder), tmp_path / "normals")


def test_copies_of_one_image_are_refused():
    with pytest.raises(InputError, match="all 9 normal images score 3, as copies of one do"):
        recalibrated(make_model(), confirmed([3] * 9))


def test_rates_at_both_thresholds():
    scores = pd.DataFrame(
        [
            ("dust", "step", 3.0, label, score)
            for label, score in [(0, 4.0), (0, 6.0), (1, 7.0), (1, 9.0)]
        ],
        columns=["drift", "kind", "severity", "label", "image_score"],
    )
    scores = pd.concat([scores, scores.assign(kind="ramp", image_score=99.0)])
    [row] = recalibration.drift_rates(scores, 5, 8).to_dict("records")
    assert row == {
        "drift": "dust", "severity": 3.0, "false_positive_rate_before": 0.5, "recall_before": 1.0,
        "false_positive_rate_after": 0.0, "recall_after": 0.5,
    }  # fmt: skip


def test_a_warm_up_brings_a_stream_back_to_where_normal_images_score():
    normal, stream = np.arange(21.0), np.arange(21.0) + 7
    assert recentred(stream, 21, normal).tolist() == normal.tolist()
    assert recentred(stream[::-1], 3, normal)[0] == 11


@pytest.mark.parametrize(
    ("stream", "warm_up", "message"),
    [
        (np.arange(3.0), 4, "a warm-up of 4 images needs at least 2 and the stream has 3"),
        (np.ones(9), 4, "the first 4 images of the stream all score 1, as copies do; see whether"),
        (np.array([1.0, np.nan]), 2, "the stream: 1 of 2 scores are not finite"),
    ],
)
def test_a_stream_that_shows_nothing_normal_is_refused(stream, warm_up, message):
    with pytest.raises(InputError, match=message):
        recentred(stream, warm_up, np.arange(9.0))
