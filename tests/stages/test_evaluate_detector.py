import json
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import blackswan
from blackswan.data.dataset import Split, mask_of
from blackswan.data.images import decode_image, read_image, write_png
from blackswan.detectors import median_residual
from blackswan.detectors.interface import Scores
from blackswan.evaluation import scoring
from blackswan.evaluation.ignoring import Ignoring
from blackswan.evaluation.score_maps import read_map

NAME = "median_residual"
METRICS = f"metrics/detectors/{NAME}.json"
CURVES = f"metrics/curves/{NAME}"
SCORES = f"data/scores/{NAME}"
CURVE_NAMES = ("precision_recall", "pro", "reliability", "roc")


def result(project):
    return json.loads((project.root / METRICS).read_text())


def scores(project):
    return pd.read_parquet(project.root / SCORES / "scores.parquet")


def detector_scores(project, split):
    detector = median_residual.load(project.root / f"data/models/{NAME}")
    rows = list(Split(project.root / "data/dataset", split))
    return rows, detector.score([decode_image(row.image) for row in rows])


def stored_maps(project, paths):
    return np.stack([read_map(project.root / SCORES / "maps.parquet", path) for path in paths])


def maps_of_padim(project):
    """Fit, judge and compare padim and the baseline; return what is stored of padim's maps."""
    for stage in ("fit_detector", "evaluate_detector"):
        project.run(stage, "padim")
    project.run("fit_baseline")
    project.run("evaluate_detector", NAME)
    project.run("compare")
    return pd.read_parquet(project.root / "data/scores/padim/maps.parquet")


def test_files(finished):
    written = [*finished.outputs(SCORES, CURVES), *finished.outputs("metrics/detectors")]
    assert sorted(written) == sorted(
        [
            *(f"{CURVES}/{name}.csv" for name in CURVE_NAMES),
            METRICS,
            METRICS.replace("median_residual", "padim"),
            f"{SCORES}/maps.parquet",
            f"{SCORES}/scores.parquet",
        ]
    )


def test_scores_and_maps_are_those_of_the_detector(finished):
    rows, expected = detector_scores(finished, "test")
    table = scores(finished)
    assert table.path.tolist() == [row.path for row in rows]
    assert table.label.tolist() == [row.label for row in rows]
    assert np.array_equal(table.image_score.to_numpy(np.float32), expected.image_scores)
    maps = pd.read_parquet(finished.root / SCORES / "maps.parquet")
    assert maps.path.tolist() == table.path.tolist()
    assert np.array_equal(stored_maps(finished, table.path), expected.anomaly_maps)


def test_a_tree_without_normal_test_images_and_with_masks_for_some(tiny_project, mvtec_tree):
    tree = tiny_project.root / "data/raw/washer"
    shutil.copytree(mvtec_tree, tree)
    shutil.rmtree(tree / "test/good")
    for name in ("hole/001", "stain/000", "stain/001"):
        (tree / f"ground_truth/{name}_mask.png").unlink()
    tiny_project.set(source__path="data/raw/washer")
    printed = tiny_project.run("extract_frames")
    assert "16 normal, 7 anomalous (2 hole, 3 scratch, 2 stain; 4 with a mask)" in printed
    for stage in ("synthesize_anomalies", "label", "build_dataset"):
        tiny_project.run(stage)
    tiny_project.run("evaluate_detector", NAME)
    found = scores(tiny_project)
    assert Counter(found.label) == {0: 4, 1: 7}
    test = Split(tiny_project.root / "data/dataset", "test")
    assert test.facts.has_mask.sum() == 4
    masks = [mask_of(test[number], (32, 32)) for number in range(len(test))]
    maps = stored_maps(tiny_project, found.path)
    drawn = [
        (one.ravel(), mask.ravel())
        for one, mask in zip(maps, masks, strict=True)
        if mask is not None
    ]
    assert len(drawn) == 8
    pixels, marks = (np.concatenate(part) for part in zip(*drawn, strict=True))
    measured = result(tiny_project)
    assert measured["pixel_auroc"] == pytest.approx(roc_auc_score(marks, pixels), abs=1e-6)
    expected = roc_auc_score(found.label, found.image_score)
    assert measured["image_auroc"] == pytest.approx(expected, abs=1e-6)


def calibration_scores(project, column):
    table = pd.read_parquet(project.root / f"data/models/{NAME}/calibration.parquet")
    parts = [table.loc[table["set"] == kind, column] for kind in ("left_out", "forward")]
    return [np.sort(part.to_numpy()) for part in parts]


def test_the_threshold_is_the_larger_of_both_sets(finished):
    left_out, ahead = calibration_scores(finished, "image_score")
    assert (len(left_out), len(ahead)) == (28, 10)
    found = result(finished)
    # alpha 0.2: 5 of 28 + 1 p-values may alarm, and 2 of 10 + 1.
    threshold = max(left_out[-5], ahead[-2])
    assert found["threshold"] == pytest.approx(threshold, rel=1e-5)
    assert found["threshold_from"] == (
        "28 normal frames, each scored by a fit without its block of time, the last 10 also by a "
        "fit on the earlier ones, alpha 0.2"
    )
    table = scores(finished)
    assert table.flagged.tolist() == (table.image_score > threshold).tolist()
    assert table.flagged.tolist() == (table.p_value <= 0.2).tolist()
    above = [
        max((1 + (part >= score).sum()) / (len(part) + 1) for part in (left_out, ahead))
        for score in table.image_score
    ]
    assert table.p_value.tolist() == pytest.approx(above)
    model = blackswan.load(finished.root / f"data/detectors/{NAME}")
    assert model.facts.threshold == threshold
    assert [np.sort(part).tolist() for part in model.normal_scores] == [
        left_out.tolist(),
        ahead.tolist(),
    ]


def test_the_colour_scale_is_of_the_same_fits_and_the_anomalies_of_validation(finished):
    rows, expected = detector_scores(finished, "validation")
    peaks = expected.anomaly_maps.max(axis=(1, 2))[[row.label == 1 for row in rows]]
    left_out, ahead = calibration_scores(finished, "map_peak")
    scale = result(finished)["heatmap"]
    assert scale["threshold"] == pytest.approx(max(left_out[-5], ahead[-2]), rel=1e-5)
    assert scale["top"] == pytest.approx(np.median(peaks), rel=1e-5)


def test_colours_take_some_anomalies_evenly_and_change_no_metric(tiny_project, monkeypatch):
    rows, expected = detector_scores(tiny_project, "validation")
    peaks = expected.anomaly_maps.max(axis=(1, 2))[[row.label == 1 for row in rows]]
    assert len(peaks) == 9
    monkeypatch.setattr(scoring, "COLOURED", 3)
    before, scored = result(tiny_project), []
    score = median_residual.Detector.score
    monkeypatch.setattr(
        median_residual.Detector,
        "score",
        lambda self, images: scored.append(len(images)) or score(self, images),
    )
    for calibration, more in (("auto", 0), ("split", 9)):
        tiny_project.set(evaluate__calibration=calibration)
        tiny_project.run("fit_baseline")
        scored.clear()
        tiny_project.run("evaluate_detector", NAME)
        assert sum(scored) == 3 + more + len(scores(tiny_project))
        after = result(tiny_project)
        assert after["heatmap"]["top"] == pytest.approx(np.median(peaks[[0, 4, 8]]), rel=1e-5)
        if calibration == "auto":
            after["heatmap"]["top"] = before["heatmap"]["top"]
            assert after == before


def test_without_calibration_scores_normal_validation_images_set_the_threshold(tiny_project):
    tiny_project.set(evaluate__calibration="split")
    tiny_project.run("fit_baseline")
    tiny_project.run("evaluate_detector", NAME)
    rows, expected = detector_scores(tiny_project, "validation")
    normal = np.sort(expected.image_scores[[row.label == 0 for row in rows]])
    assert len(normal) == 9
    found = result(tiny_project)
    # alpha 0.2 of 9 + 1: two p-values may alarm, so the second largest is the threshold.
    assert found["threshold"] == pytest.approx(normal[7], rel=1e-5)
    assert found["threshold_from"] == "9 normal validation images, alpha 0.2"
    peaks = expected.anomaly_maps.max(axis=(1, 2))
    peaks = np.sort(peaks[[row.label == 0 for row in rows]])
    assert found["heatmap"]["threshold"] == pytest.approx(peaks[7], rel=1e-5)
    table = scores(tiny_project)
    assert table.flagged.tolist() == (table.p_value <= 0.2).tolist()


def test_one_that_learns_anomalies_has_a_threshold_between(tiny_project, monkeypatch):
    monkeypatch.setattr(median_residual, "LEARNS_ANOMALIES", True, raising=False)
    monkeypatch.setattr(
        median_residual.Detector,
        "score",
        lambda self, images: Scores(
            np.array([0.9 if image.max() > 254 else 0.01 for image in images]),
            np.stack([image[..., 0] for image in images]),
            images[0].shape[:2],
            probabilities=True,
        ),
    )
    monkeypatch.setattr(scoring, "COLOURED", 1)  # which its threshold must not heed
    tiny_project.run("fit_baseline")
    tiny_project.set(evaluate__miss_rate=0.2)
    tiny_project.run("evaluate_detector", NAME)
    found = result(tiny_project)
    assert found["threshold"] == pytest.approx(0.231662, rel=1e-5)  # midway of 0.01 and 0.9
    assert found["threshold_from"].endswith("and at most 0.2 of validation's anomalies missed")
    table = scores(tiny_project)
    assert table.flagged.tolist() == (table.image_score > found["threshold"]).tolist()
    tiny_project.set(evaluate__miss_rate=0.01)  # of 9 anomalies: no room
    tiny_project.run("evaluate_detector", NAME)
    assert result(tiny_project)["threshold"] == pytest.approx(0.01)


def test_unseen_generators_have_tables_of_their_own(finished):
    found, table = result(finished), scores(finished)
    assert sorted(found["unseen"]) == ["cut_paste", "perlin_texture"]
    assert sorted(set(table.table)) == ["cut_paste", "main", "perlin_texture"]
    assert (found["n_normal"], found["n_anomalous"]) == (6, 6)
    for name, numbers in [("main", found), *found["unseen"].items()]:
        chosen = table[(table.table == name) | (table.label == 0)]
        assert numbers["image_auroc"] == pytest.approx(
            roc_auc_score(chosen.label, chosen.image_score), abs=1e-6
        )
        groups = chosen.groupby("label").group.nunique().min()
        assert numbers["n_groups"] == numbers["n_pixel_groups"] == groups == 2
        assert not any(key.endswith("_low") for key in numbers)  # two groups promise nothing
        assert numbers["false_positive_rate"] == pytest.approx(
            chosen.flagged[chosen.label == 0].mean(), abs=1e-6
        )
        assert numbers["recall"] == pytest.approx(
            chosen.flagged[chosen.label == 1].mean(), abs=1e-6
        )
    assert "expected_calibration_error" not in found  # residuals are no probabilities
    assert found["image_auroc"] > 0.9


def test_twice_the_same_bytes(tiny_project):
    before = tiny_project.outputs()
    printed = tiny_project.run("evaluate_detector", NAME)
    assert tiny_project.outputs() == before
    held, measured = printed.splitlines()
    verdict = result(tiny_project)["threshold_verdict"]["verdict"]
    assert held == f"{NAME}: the promise on false alarms: {verdict}"
    assert measured.startswith(f"{NAME}: image_auroc ")
    assert measured.endswith(", groups 2")


def test_the_batch_size_changes_no_score(tiny_project):
    before = scores(tiny_project)
    metrics = result(tiny_project)
    tiny_project.set(evaluate__batch_size=5)
    tiny_project.run("evaluate_detector", NAME)
    pd.testing.assert_frame_equal(scores(tiny_project), before)
    assert result(tiny_project) == metrics


def test_an_mvtec_tree_has_a_row_for_each_defect(tiny_project, mvtec_tree):
    tiny_project.set(source__path=str(mvtec_tree), evaluate__alpha=0.3)
    tiny_project.run_chain()
    tiny_project.run("fit_baseline")
    tiny_project.run("evaluate_detector", NAME)
    found = result(tiny_project)
    assert [(row["defect"], row["n"]) for row in found["defects"]] == [
        ("hole", 2),
        ("scratch", 3),
        ("stain", 2),
    ]
    assert found["unseen"] == {}
    assert (found["n_normal"], found["n_anomalous"]) == (4, 7)
    assert 0 < found["pixel_auroc"] <= 1


def test_without_masks_pixel_metrics_are_absent_not_zero(tiny_project, mvtec_tree):
    folder = tiny_project.root / "data/raw/photos"
    for kind, source in {"normal": "train/good", "anomaly": "test/scratch"}.items():
        (folder / kind).mkdir(parents=True)
        for path in (mvtec_tree / source).iterdir():
            (folder / kind / path.name).write_bytes(path.read_bytes())
    tiny_project.set(
        source__path="data/raw/photos", extract_frames__folder__masks="", evaluate__alpha=0.3
    )
    tiny_project.run_chain()
    tiny_project.run("fit_baseline")
    tiny_project.run("evaluate_detector", NAME)
    found = result(tiny_project)
    assert (found["n_normal"], found["n_anomalous"]) == (4, 3)
    assert [key for key in found if key.startswith("pixel")] == []
    assert "image_auroc" in found


def test_an_alpha_that_the_normals_cannot_support_is_refused(tiny_project):
    tiny_project.set(evaluate__alpha=0.03)
    message = tiny_project.refuse("evaluate_detector", NAME)
    assert "evaluate.alpha = 0.03 is too small for 28 held-out normal images" in message
    assert "the smallest is 0.034483); set evaluate.alpha=0.034483 or" in message
    tiny_project.set(evaluate__alpha=0.034483)
    tiny_project.run("evaluate_detector", NAME)  # by the left-out images alone: 10 are too few


def test_a_model_that_is_not_there_is_told(tiny_project):
    (tiny_project.root / f"data/models/{NAME}/detector.json").unlink()
    message = tiny_project.refuse("evaluate_detector", NAME)
    assert f"data/models/{NAME}/detector.json is missing" in message


def test_it_says_whether_the_promise_on_false_alarms_holds(finished):
    said = result(finished)["threshold_verdict"]
    assert said["verdict"] in ("holds", "cannot say", "void for this source")
    normal = scores(finished).query("label == 0")
    assert 0 < said["images"] <= len(normal)
    assert said["flags"] <= max(1, normal.flagged.sum())
    assert bool(said["advice"]) == (said["verdict"] != "holds")
    assert result(finished)["verdict"] == said["verdict"]


def test_a_tall_source_is_judged_in_its_own_shape(tiny_project):
    tall = [64, 32]
    tiny_project.set(
        extract_frames__crop=[8, 0, 20, 40], extract_frames__size=tall,
        build_dataset__image_size=tall, detectors__padim__image_size=[56, 28],
    )  # fmt: skip
    tiny_project.run_chain()
    maps = maps_of_padim(tiny_project)
    assert set(zip(maps.height, maps.width, strict=True)) == {(64, 32)}
    model = blackswan.load(tiny_project.root / "data/detectors/padim")
    assert model.detector.backbone.grids == [(4, 2), (4, 2)]
    new = model.score([np.zeros((40, 48, 3), np.uint8)])  # cropped and scaled as the clip was
    assert new.anomaly_maps[0].shape == (64, 32)


def test_a_source_of_several_shapes_is_judged_without_stretching(tiny_project, mvtec_tree):
    root = tiny_project.root / "data/raw/parts"
    for path in sorted(mvtec_tree.rglob("*.png")):
        image = read_image(path)
        narrow = path.stem.startswith("000") or path.stem.startswith("002")
        write_png(root / path.relative_to(mvtec_tree), image[:, :24].copy() if narrow else image)
    tiny_project.set(
        source__path="data/raw/parts", extract_frames__size=None, evaluate__alpha=0.3,
        build_dataset__image_size={"within": [64, 64]}, detectors__padim__image_size=[112, 28],
    )  # fmt: skip
    tiny_project.run_chain()
    assert "set it to [64, 64]" in tiny_project.refuse("fit_detector", "padim")
    tiny_project.set(detectors__padim__image_size=56)
    maps = maps_of_padim(tiny_project)
    assert set(zip(maps.height, maps.width, strict=True)) == {(64, 64), (64, 48)}
    assert set(zip(maps["rows"], maps["columns"], strict=True)) == {(4, 4), (4, 3)}
    table = pd.read_parquet(tiny_project.root / "data/scores/padim/scores.parquet")
    files = [root / path.removeprefix("frames/images/") for path in table.path]
    verdicts = blackswan.load(tiny_project.root / "data/detectors/padim").score(
        [read_image(file) for file in files]
    )
    assert np.array_equal(verdicts.image_scores, table.image_score.to_numpy(np.float32))


def test_regions_that_are_ignored_count_nowhere(tiny_project):
    half = [[0, 0], [23, 0], [23, 39], [0, 39]]  # of what is seen of the clip, too
    cameras = {"line1": {"width": 48, "height": 40, "ignore": [half]}}
    (tiny_project.root / "data/ignore.json").write_text(json.dumps({"cameras": cameras}))
    before = result(tiny_project)
    tiny_project.set(ignore__camera="line1")
    for stage, detector in (("fit_baseline", NAME), ("fit_detector", "padim")):
        tiny_project.run(stage, *([] if stage == "fit_baseline" else [detector]))
        tiny_project.run("evaluate_detector", detector)
    rows, _ = detector_scores(tiny_project, "test")
    model = blackswan.load(tiny_project.root / f"data/detectors/{NAME}")
    ignored = model.ignored
    judge = Ignoring(model.detector, ignored, model.facts.preprocessing)
    expected = judge.score([decode_image(row.image) for row in rows])
    table = scores(tiny_project)
    assert np.array_equal(table.image_score.to_numpy(np.float32), expected.image_scores)
    assert np.array_equal(stored_maps(tiny_project, table.path), expected.anomaly_maps)
    counts = ~judge.mask((32, 32))
    assert np.flatnonzero(~counts[0]).tolist() == [*range(16)]
    masks = [mask_of(row, (32, 32)) for row in rows]
    main = (table.label == 0) | (table.defect == "salt_and_pepper")
    kept = [(one[counts], mask[counts]) for one, mask, wanted in
            zip(expected.anomaly_maps, masks, main, strict=True) if wanted]  # fmt: skip
    pixels, marks = (np.concatenate(part) for part in zip(*kept, strict=True))
    found = result(tiny_project)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(marks, pixels), abs=1e-6)
    assert found["threshold_from"] == (
        f"{before['threshold_from']}; the regions of line1 (sha256 {ignored.sha256[:12]}) do not "
        "count"
    )
    left_out, ahead = calibration_scores(tiny_project, "image_score")
    assert model.facts.threshold == max(left_out[-5], ahead[-2])
    images = Split(tiny_project.root / "data/dataset", "train").normal_images
    of_train = judge.score(list(images)).image_scores
    assert set(of_train.tolist()) <= set(left_out.astype(np.float32).tolist())
    padim = blackswan.load(tiny_project.root / "data/detectors/padim")
    assert padim.ignored == ignored
    verdicts = padim.score_prepared([decode_image(row.image) for row in rows])
    stored = pd.read_parquet(tiny_project.root / "data/scores/padim/scores.parquet")
    np.testing.assert_allclose(verdicts.image_scores, stored.image_score, rtol=1e-5)


def test_without_regions_nothing_tells_of_them(finished):
    model = finished.root / f"data/detectors/{NAME}"
    assert blackswan.load(model).ignored is None
    assert sorted(path.name for path in model.iterdir()) == [
        "fitted", "model.json", "normal_scores.parquet",
    ]  # fmt: skip
