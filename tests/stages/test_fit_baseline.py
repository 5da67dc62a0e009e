import json

import pandas as pd

from blackswan.data.dataset import Split
from blackswan.detectors import median_residual

MODEL = "data/models/median_residual"


def test_the_model_holds_params_and_calibration_scores_and_nothing_else(finished):
    files = ["calibration.parquet", "detector.json"]
    assert sorted(finished.outputs(MODEL)) == [f"{MODEL}/{name}" for name in files]
    written = json.loads((finished.root / MODEL / "detector.json").read_text())
    assert written["params"] == {"blur": 9, "kernel": 3}


def test_scores_of_all_normal_images_calibrate_it(finished, tiny_project):
    scores = pd.read_parquet(finished.root / MODEL / "calibration.parquet")
    splits = [Split(finished.root / "data/dataset", name) for name in ("train", "validation")]
    images = splits[0].normal_images + splits[1].normal_images
    detector = median_residual.load(finished.root / MODEL)
    expected = dict(zip(images.paths, detector.score(list(images)).image_scores, strict=True))
    assert len(expected) == 28
    left_out = scores[scores["set"] == "left_out"]
    assert dict(zip(left_out.path, left_out.image_score, strict=True)) == expected
    ahead = scores[scores["set"] == "forward"]
    assert len(ahead) == 10  # the last third of 28
    assert ahead.timestamp_s.min() > left_out.timestamp_s.sort_values().iloc[17]
    tiny_project.set(evaluate__calibration="split")
    assert tiny_project.run("fit_baseline").endswith("thresholds by split\n")
    assert sorted(tiny_project.outputs(MODEL)) == [f"{MODEL}/detector.json"]


def test_twice_the_same_bytes_and_a_bad_kernel_changes_nothing(tiny_project):
    before = tiny_project.outputs()
    tiny_project.run("fit_baseline")
    assert tiny_project.outputs() == before
    tiny_project.set(fit_baseline__kernel=4)
    assert "fit_baseline.kernel = 4: must be an odd" in tiny_project.refuse("fit_baseline")
