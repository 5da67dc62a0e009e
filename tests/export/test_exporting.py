"""An export agrees with its detector, or is not written."""

import json

import numpy as np
import pytest
from small_detectors import KINDS, PHOTO, PREPARED, SIZE, draw_photo

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from blackswan.data.dataset import Split, write_shards
from blackswan.data.images import write_png
from blackswan.data.preprocessing import Preprocessing
from blackswan.errors import InputError
from blackswan.evaluation import model as complete
from blackswan.export import exporting, parity
from blackswan.export.runtime import load
from blackswan.tracking.runs import dvc_hash

PHOTOS = [draw_photo(200), draw_photo(201, stain=True), draw_photo(202)]
SLOW = {name for name in KINDS if name not in ("padim", "median_residual")}


def export(folder, out, dataset, runtime="onnx", photos=True, int8=False):
    found = exporting.Photos(PHOTO, PHOTOS) if photos else None
    return exporting.export(folder, out, runtime, dataset, found, int8=int8)


def check(folder, out, dataset, runtime="onnx"):
    """Export a detector and compare what both say of photos and of validation."""
    done = export(folder, out, dataset, runtime)
    assert (done.validation.images, done.photos.images) == (14, 3)
    assert max(done.validation.image_score, done.photos.image_score) <= 1e-4
    assert (done.validation.other_verdicts, done.photos.other_verdicts) == (0, 0)
    detector, graph = complete.load(folder), load(out)
    for images in (PHOTOS, [PREPARED(photo) for photo in PHOTOS]):
        expected = detector.score(images)
        found = graph.detector.score(images)
        np.testing.assert_allclose(found.image_scores, expected.image_scores, rtol=1e-4)
    verdicts = graph.score(PHOTOS)
    assert verdicts.flagged.tolist() == expected.flagged.tolist()
    assert verdicts.p_values.tolist() == expected.p_values.tolist()
    assert verdicts.threshold == expected.threshold
    assert verdicts.probabilities == expected.probabilities
    assert (verdicts.logits is None) == (expected.logits is None)
    for one, other in zip(verdicts.anomaly_maps, expected.anomaly_maps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS],
)
def test_every_kind_agrees_by_onnx_runtime(complete_of, dataset, tmp_path, kind):
    check(complete_of(kind), tmp_path / "out", dataset)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_agrees_by_openvino(complete_of, dataset, tmp_path, kind):
    pytest.importorskip("openvino")
    check(complete_of(kind), tmp_path / "out", dataset, "openvino")


def test_what_stands_in_an_export(complete_of, dataset, tmp_path):
    folder = complete_of("median_residual")
    done = export(folder, tmp_path / "out", dataset, photos=False)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["export.json", "model.onnx", "normal_scores.json"]
    said = json.loads((tmp_path / "out/export.json").read_text())
    facts = complete.load(folder).facts
    assert said["facts"]["threshold"] == facts.threshold
    assert said["detector_md5"] == dvc_hash(folder)
    assert (said["size"], said["photo"], said["photos"]) == ([*SIZE], None, None)
    assert said["validation"] == {
        "images": 14, "image_score": 0.0, "anomaly_map": 0.0, "other_verdicts": 0
    }  # fmt: skip
    assert exporting.described(done) == [
        "the graph takes images of 64 x 64 pixels",
        "on 14 validation images scores differ by 0.0e+00, maps by 0.0e+00, verdicts of 0",
    ]


def test_a_graph_that_differs_is_not_written(complete_of, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match=r"the graph is not the detector: on 14 .* is written"):
        export(complete_of("median_residual"), tmp_path / "out", dataset)
    assert [*tmp_path.iterdir()] == []


def test_what_stands_in_a_folder_is_not_replaced(complete_of, dataset, tmp_path):
    folder = complete_of("median_residual")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.json").write_text("mine")
    with pytest.raises(InputError, match="out holds other files; name an empty folder with --out"):
        export(folder, tmp_path / "out", dataset)
    assert (tmp_path / "out/model.json").read_text() == "mine"


def test_a_map_of_nothing_is_no_likeness():
    found = parity._difference(np.ones(2), np.array([1, np.nan]), 0.1)
    assert found == np.inf


@pytest.mark.parametrize("graph_auroc", [0.9449, 0.9451])
def test_int8_that_costs_auroc_is_refused(complete_of, dataset, tmp_path, monkeypatch, graph_auroc):
    found = iter([0.95, graph_auroc])
    monkeypatch.setattr(exporting, "quantised", lambda graph, images: graph)
    monkeypatch.setattr(exporting, "roc_auc_score", lambda labels, scores: next(found))
    folder, out = complete_of("median_residual"), tmp_path / "out"
    if graph_auroc > 0.945:
        done = export(folder, out, dataset, photos=False, int8=True)
        assert done.auroc.model_dump() == {"detector": 0.95, "graph": 0.9451}
    else:
        with pytest.raises(InputError, match=r"validation falls from 0\.9500 to 0\.9449, .*--int8"):
            export(folder, out, dataset, photos=False, int8=True)
        assert [*tmp_path.iterdir()] == []


def test_what_has_no_network_has_no_int8(complete_of, dataset, tmp_path):
    pytest.importorskip("nncf")
    with pytest.raises(InputError, match="has no network to compute in 8 bits; export it without"):
        export(complete_of("median_residual"), tmp_path / "out", dataset, int8=True)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", ["padim", "patchcore", "dino_memory"])
def test_int8_is_near_the_detector(complete_of, dataset, tmp_path, monkeypatch, kind, runtime):
    pytest.importorskip("nncf")
    pytest.importorskip("openvino")
    monkeypatch.setattr(exporting, "WORST_AUROC", 1.0)  # of random weights
    done = export(complete_of(kind), tmp_path / "out", dataset, runtime, int8=True)
    assert done.int8
    assert 0 < done.validation.image_score < 0.5
    assert load(tmp_path / "out").score(PHOTOS).image_scores.shape == (3,)


def test_what_is_no_graph_is_refused(complete_of, dataset, tmp_path):
    folder = complete_of("median_residual")

    def with_preprocessing(**changes):
        changed = tmp_path / f"changed{len([*tmp_path.iterdir()])}"
        model = complete.load(folder)
        preprocessing = model.facts.preprocessing.model_copy(update=changes)
        changed.mkdir()
        new = model.facts.model_copy(update={"preprocessing": preprocessing})
        complete.save(changed, folder / "fitted", new, model.normal_scores)
        return changed

    with pytest.raises(InputError, match="cropped or scaled in another way"):
        export(with_preprocessing(steps=[]), tmp_path / "out", dataset)
    upright = with_preprocessing(pose="upright")
    other = tmp_path / "upright"
    write_upright(dataset, other)
    with pytest.raises(InputError, match="lays parts upright, which is no graph; export it with"):
        export(upright, tmp_path / "out", other)
    assert export(upright, tmp_path / "out", other, photos=False).photo is None


def write_upright(dataset, other):
    """Write the data set again, as of photos that were laid upright."""
    preprocessing = Preprocessing(steps=PREPARED.steps, pose="upright")
    for split in ("train", "validation"):
        rows = Split(dataset, split)
        write_shards(other, split, (rows[n] for n in range(len(rows))), 100, preprocessing)


def test_photos_are_of_one_size(tmp_path):
    for number in range(3):
        write_png(tmp_path / f"{number}.png", draw_photo(number))
    found = exporting.read_photos(tmp_path, 16)
    assert (found.size, len(found.images)) == (PHOTO, 3)
    write_png(tmp_path / "3.png", draw_photo(3)[:50])
    with pytest.raises(InputError, match=r"several sizes, such as 3\.png, .* with --prepared"):
        exporting.read_photos(tmp_path, 16)
