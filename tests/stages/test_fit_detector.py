import json

import pytest

MODEL = "data/models/padim"


def test_the_model_stands_alone_and_is_no_pickle(finished):
    files = sorted(name.removeprefix(f"{MODEL}/") for name in finished.outputs(MODEL))
    assert files == [
        "backbone/config.json",
        "backbone/model.safetensors",
        "backbone/preprocessor_config.json",
        "detector.json",
        "detector.safetensors",
    ]
    written = json.loads((finished.root / MODEL / "detector.json").read_text())
    assert written["params"]["features"] == 8


def test_twice_the_same_bytes(tiny_project):
    before = tiny_project.outputs()
    assert tiny_project.run("fit_detector", "padim") == "padim: fitted on 19 normal images\n"
    assert tiny_project.outputs() == before


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
