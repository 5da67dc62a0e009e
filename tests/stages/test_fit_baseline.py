import json

MODEL = "data/models/median_residual"


def test_the_model_holds_the_params_and_nothing_else(finished):
    assert sorted(finished.outputs(MODEL)) == [f"{MODEL}/detector.json"]
    written = json.loads((finished.root / MODEL / "detector.json").read_text())
    assert written["params"] == {"blur": 9, "kernel": 3}


def test_twice_the_same_bytes_and_a_bad_kernel_changes_nothing(tiny_project):
    before = tiny_project.outputs()
    tiny_project.run("fit_baseline")
    assert tiny_project.outputs() == before
    tiny_project.set(fit_baseline__kernel=4)
    assert "fit_baseline.kernel = 4: must be an odd" in tiny_project.refuse("fit_baseline")
