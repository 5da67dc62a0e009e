"""The command itself, in a process of its own, with a model of the finished project."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import chdir

import pandas as pd
import pytest
from conftest import ROOT
from typer.testing import CliRunner

import blackswan
from blackswan import cli
from blackswan.data.regions import read_regions
from blackswan.data.sources.video import Sampling, iterate_frames

ALL = Sampling(every_n_seconds=0, start_s=0, end_s=None, max_frames=None)
PROGRAM = [sys.executable, "-c", "from blackswan.cli import app; app()"]


def start(folder, *arguments):
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(finished):
    return finished.root / "data/detectors/padim"


def test_verdicts_are_those_of_the_pipeline(finished, model, tmp_path):
    clip = finished.root / "data/raw/clip.avi"
    process = start(tmp_path, "score", model, clip, "--out", "verdicts")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    found = pd.read_parquet(tmp_path / "verdicts/verdicts.parquet")
    flagged = (found.verdict == "anomalous").sum()
    assert printed.endswith(f"{flagged} of 40 images flagged; see verdicts\n")
    scores = pd.read_parquet(finished.root / "data/scores/padim/scores.parquet")
    normal = scores[scores.label == 0]
    names = normal.path.str.removeprefix("frames/images/").str.removesuffix(".png")
    both = found.merge(normal.assign(path=names), on="path", suffixes=("", "_of_pipeline"))
    assert len(both) == len(normal) > 0
    assert ((both.verdict == "anomalous") == both.flagged).all()
    assert (both.p_value == both.p_value_of_pipeline).all()


@pytest.mark.slow
def test_a_data_set_gets_the_scores_of_the_pipeline(finished, model, tmp_path):
    process = start(tmp_path, "score", model, finished.root / "data/dataset/test", "--out", "v")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    found = pd.read_parquet(tmp_path / "v/verdicts.parquet")
    scores = pd.read_parquet(finished.root / "data/scores/padim/scores.parquet")
    assert found.path.tolist() == scores.path.tolist()
    assert (found.image_score == scores.image_score.astype("float32")).all()
    assert (found.p_value == scores.p_value).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "CLIP"], "nowhere is no complete model, it has no model.json"),
        (["MODEL", "nowhere"], "nowhere does not exist"),
        (["MODEL", ".", "--out", "verdicts"], "verdicts lies in ., which is scored"),
    ],
)
def test_bad_input_ends_in_one_sentence(finished, model, tmp_path, arguments, message):
    real = {"MODEL": model, "CLIP": finished.root / "data/raw/clip.avi"}
    process = start(tmp_path, "score", *[real.get(word, word) for word in arguments])
    _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_regions_do_not_count_and_another_file_of_them_is_another_run(finished, tmp_path):
    """The disc of the clip raises no flag where the whole picture but a strip is ignored."""
    model, clip = finished.root / "data/detectors/median_residual", "data/raw/clip.avi"
    one = {"width": 48, "height": 40, "ignore": [[[0, 0], [40, 0], [40, 39], [0, 39]]]}
    path = tmp_path / "regions.json"
    path.write_text(json.dumps({"cameras": {"line1": one}}))
    words = ["score", model, finished.root / clip, "--out", "v", "--ignore", path]
    runner = CliRunner()

    def score(*more):
        with chdir(tmp_path):
            done = runner.invoke(cli.app, [*map(str, words), *more])
        return done.output if done.exit_code == 0 else str(done.exception)

    assert "has no camera camera, but line1; name one of them by --camera" in score()
    assert score("--camera", "line1").endswith("of 40 images flagged; see v\n")
    found = pd.read_parquet(tmp_path / "v/verdicts.parquet")
    judge = blackswan.load(model)
    frames = [item.read()[0] for item in iterate_frames(finished.root / clip, ALL)]
    seen = [judge.see(frame, read_regions(path, "line1")) for frame in frames]
    assert found.image_score.tolist() == judge.score_seen(seen).image_scores.tolist()
    assert (found.image_score < judge.score(frames).image_scores).any()
    run = json.loads((tmp_path / "v/run.json").read_text())
    assert run["ignored"] == f"line1 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    path.write_text(json.dumps({"cameras": {"line1": one | {"ignore": []}}}))
    assert "holds the verdicts of another model, source or setting" in score("--camera", "line1")


@pytest.mark.slow
def test_an_export_gives_the_verdicts_of_its_detector(finished, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = "data/detectors/median_residual"
    process = start(finished.root, "export", model, "--to", "onnx", "--out", tmp_path / "export")
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    lines = printed.splitlines()
    assert lines[0].startswith("the graph takes photos of ")
    assert lines[0].endswith(" pixels, or prepared images of 32 x 32 pixels")
    assert all(line.endswith("verdicts of 0") for line in lines[1:3])
    found = {}
    for folder in (finished.root / model, tmp_path / "export"):
        out = tmp_path / f"{folder.name}_verdicts"
        process = start(
            tmp_path, "score", folder, finished.root / "data/raw/clip.avi", "--out", out
        )
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        found[folder.name] = pd.read_parquet(out / "verdicts.parquet")
    exact = ["path", "time_s", "p_value", "threshold", "verdict"]
    assert found["export"][exact].equals(found["median_residual"][exact])
    assert found["export"].image_score.to_numpy() == pytest.approx(
        found["median_residual"].image_score.to_numpy(), rel=1e-4
    )


def test_ctrl_c_says_that_the_command_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_score", lambda *arguments: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(sys, "argv", ["blackswan", "score", "model", "clip.mp4"])
    with pytest.raises(SystemExit) as ended:
        cli.app()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"


def test_a_setting_without_a_value_is_refused(finished):
    with chdir(finished.root):
        done = CliRunner().invoke(cli.app, ["check", "-S", "nonsense"])
    assert done.exit_code == 1
    assert "-S nonsense: " in f"{done.exception} {done.output}"


@pytest.mark.slow
def test_check_takes_params_as_dvc_does(finished, tmp_path):
    def check(*arguments):
        process = start(finished.root, "check", *arguments)
        printed, errors = process.communicate()
        return process.returncode, printed, errors.splitlines()[-1:]

    before = (finished.root / "params.yaml").read_text()
    code, printed, _ = check()
    assert code == 0
    assert "data/raw/clip.avi: 40 frames\n" in printed
    assert "  taken     crop center_square, size 32 x 32\n" in printed
    code, printed, _ = check("data/raw/clip.avi", "-S", "extract_frames.crop=[0,0,20,30]")
    assert code == 0
    assert "  taken     crop (0, 0, 20, 30), size 32 x 32\n" in printed
    code, _, errors = check("-S", "evaluate.alpha=0.001")
    assert code == 1
    assert errors[0].startswith("error: too few images: evaluate.alpha = 0.001 is too small for")
    assert (finished.root / "params.yaml").read_text() == before
