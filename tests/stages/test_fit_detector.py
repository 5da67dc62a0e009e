import json

import numpy as np
import pandas as pd
import pytest

from blackswan.data.dataset import Split
from blackswan.detectors import padim
from blackswan.detectors.interface import Resources
from blackswan.evaluation import calibration
from blackswan.params import load_section

MODEL = "data/models/padim"


def test_the_model_stands_alone_and_is_no_pickle(finished):
    files = sorted(name.removeprefix(f"{MODEL}/") for name in finished.outputs(MODEL))
    assert files == [
        "backbone/config.json",
        "backbone/model.safetensors",
        "backbone/preprocessor_config.json",
        "calibration.parquet",
        "detector.json",
        "detector.safetensors",
    ]
    written = json.loads((finished.root / MODEL / "detector.json").read_text())
    assert written["params"]["features"] == 8


def test_twice_the_same_bytes(tiny_project):
    before = tiny_project.outputs()
    assert tiny_project.run("fit_detector", "padim") == (
        "padim: fitted on 28 normal images, thresholds by block_and_forward\n"
    )
    assert tiny_project.outputs() == before


def test_it_learns_from_all_normals_and_each_is_scored_by_a_fit_without_it(finished):
    root = finished.root
    params = load_section(padim.Params, "detectors.padim", root / "params.yaml")
    resources = Resources([], root / "data/weights", root, seed=0)
    splits = [Split(root / "data/dataset", name) for name in ("train", "validation")]
    images = splits[0].normal_images + splits[1].normal_images
    whole = padim.fit(images, params, resources).score(list(images)).image_scores
    saved = padim.load(root / MODEL).score(list(images)).image_scores
    np.testing.assert_allclose(saved, whole, rtol=1e-4)

    scores = pd.read_parquet(root / MODEL / "calibration.parquet")
    assert set(scores.method) == {"block_and_forward"}
    facts = calibration.with_source(images.facts)
    folds = calibration.plan(facts, "block_and_forward", 0.06, 0)
    begin = 0
    for fold in folds:
        rows = scores.iloc[begin : begin + len(fold.scored)]
        begin += len(fold.scored)
        assert rows.path.tolist() == facts.path.iloc[fold.scored].tolist()
        assert set(rows["set"]) == {fold.kind}
        asked = list(images.take(fold.scored))
        alone = padim.fit(images.take(fold.fitted), params, resources).score(asked)
        np.testing.assert_allclose(rows.image_score, alone.image_scores, rtol=1e-4)
        np.testing.assert_allclose(rows.map_peak, alone.anomaly_maps.max((1, 2)), rtol=1e-4)
        assert (rows.image_score > saved[fold.scored]).all()  # what is new to a fit scores higher
    assert begin == len(scores)


def test_split_learns_from_train_alone(tiny_project):
    tiny_project.set(evaluate__calibration="split")
    assert tiny_project.run("fit_detector", "padim") == "padim: fitted on 19 normal images\n"
    assert f"{MODEL}/calibration.parquet" not in tiny_project.outputs(MODEL)
    tiny_project.run("evaluate_detector", "padim")
    found = json.loads((tiny_project.root / "metrics/detectors/padim.json").read_text())
    assert found["threshold_from"] == "9 normal validation images, alpha 0.2"


def test_photos_are_calibrated_by_groups(tiny_project, mvtec_tree):
    tiny_project.set(source__path=str(mvtec_tree), evaluate__alpha=0.3)
    tiny_project.run_chain()
    printed = tiny_project.run("fit_detector", "padim")
    assert printed == "padim: fitted on 16 normal images, thresholds by cross\n"
    tiny_project.run("evaluate_detector", "padim")
    found = json.loads((tiny_project.root / "metrics/detectors/padim.json").read_text())
    assert found["threshold_from"] == (
        "16 normal images, each scored by a fit without its fold, alpha 0.3 (proven: at most 0.6)"
    )
    tiny_project.set(evaluate__calibration="block_and_forward")
    assert "have no time; choose auto or cross" in tiny_project.refuse("fit_detector", "padim")


def test_a_method_that_is_none_is_named(tiny_project):
    tiny_project.set(evaluate__calibration="crosswise")
    message = tiny_project.refuse("fit_detector", "padim")
    assert "evaluate.calibration = 'crosswise': Input should be 'auto', 'split'" in message


def test_a_detector_is_a_file_and_a_block(tiny_project):
    message = tiny_project.refuse("fit_detector", "crystal_ball")
    assert "no detector crystal_ball" in message
    message = tiny_project.refuse("fit_detector", "patchcore")
    assert "params.yaml has no block detectors.patchcore" in message
    message = tiny_project.refuse("fit_detector", "interface")
    assert "interface is no detector" in message


def test_a_knob_out_of_range_is_named_in_full(tiny_project):
    tiny_project.set(detectors__padim__features=0)
    message = tiny_project.refuse("fit_detector", "padim")
    assert "detectors.padim.features = 0: " in message


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_dataset_that_is_not_there_is_told(tiny_project, split):
    for path in (tiny_project.root / "data/dataset" / split).iterdir():
        path.unlink()
    message = tiny_project.refuse("fit_detector", "padim")
    assert message == f"error: data/dataset has no {split} shard; run `dvc repro build_dataset`"
