"""The training stage on a tiny network: reload and resume restore every tensor."""

import itertools
import os
import shutil
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from kills import killed_at, run_forked
from safetensors.torch import load_file
from tiny_training import PARAMS, write_splits
from tiny_weights import KINDS, write_weights
from transformers import Trainer, TrainerCallback, set_seed

from blackswan.detectors import vit
from blackswan.errors import InputError, run

STAGE = Path(__file__).parents[2] / "stages/train_vit.py"
# The first epoch is the best.
WORSENING = {"learning_rate": 1.0, "head_learning_rate": 1.0}
ONE_KIND = pytest.mark.parametrize("stage", ["vit"], indirect=True)
LOSSES = ("train/loss.tsv", "validation/loss.tsv")


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


class KillAfter(TrainerCallback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, **_) -> None:  # noqa: ANN001, ANN003
        if round(state.epoch) == self.epoch:
            raise KilledError


@pytest.fixture(params=KINDS)
def stage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The stage as a module, in a folder with a tiny dataset and tiny weights."""
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "data/weights/tiny", request.param)
    write_splits(tmp_path, train=12, validation=6)
    spec = spec_from_file_location("train_vit", STAGE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(stage: ModuleType, folder: str, **changes: float) -> Trainer:
    params, weights = stage.Params(**PARAMS | changes), Path("data/weights/tiny")
    set_seed(params.seed)
    network, inputs = vit.Network.from_weights(weights), vit.Input.of_weights(weights, 56)
    return stage.train(network, inputs, params, Path(folder))


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert len(first) > 30
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_the_best_epoch_is_reloaded_whole(stage: ModuleType) -> None:
    trainer = train(stage, "run/best")
    best = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    assert_equal(trainer.model.state_dict(), best)


@pytest.mark.parametrize("frozen_blocks", [0, 1])
def test_a_killed_run_resumes_and_ends_with_the_same_tensors(
    stage: ModuleType, frozen_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(stage, "run/whole", frozen_blocks=frozen_blocks)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "Progress", lambda name: KillAfter(2))
        with pytest.raises(KilledError):
            train(stage, "killed/run", frozen_blocks=frozen_blocks)
    assert [path.name for path in Path("killed/run").glob("checkpoint-*")]
    resumed = train(stage, "killed/run", frozen_blocks=frozen_blocks)
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    assert resumed.state.log_history[0]["loss"] == whole.state.log_history[0]["loss"]
    assert len(resumed.state.log_history) == len(whole.state.log_history)


def test_frozen_blocks_stay_as_the_weights_have_them(stage: ModuleType) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"train_vit": PARAMS | {"frozen_blocks": 1}}))
    weights = load_file("data/weights/tiny/model.safetensors")
    stage.main()
    trained = vit.load(Path("data/models/vit")).network.classifier.base_model.state_dict()
    kept = {name for name in trained if torch.equal(trained[name], weights[name])}
    assert kept >= {name for name in trained if name.startswith(("embeddings", "encoder.layer.0."))}
    changed = {name for name in trained if name.startswith("encoder.layer.1.")} - kept
    assert len(changed) > 10


@ONE_KIND
def test_a_run_that_stopped_early_trains_no_further_when_resumed(stage: ModuleType) -> None:
    whole = train(stage, "run/one", **WORSENING)
    losses = [entry["eval_loss"] for entry in whole.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2
    assert losses[0] < losses[1]
    resumed = train(stage, "run/one", **WORSENING)  # as after a kill before the clean-up
    assert resumed.state.global_step == whole.state.global_step
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    kept = sorted(path.name for path in Path("run/one").iterdir())
    assert kept == ["checkpoint-3", "checkpoint-6"]


@ONE_KIND
@pytest.mark.parametrize("lost", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
@pytest.mark.parametrize("checkpoint", [3, 9])  # the best, and the last
def test_without_the_best_or_a_file_it_starts_anew(
    stage: ModuleType, checkpoint: int, lost: str
) -> None:
    changes = {**WORSENING, "early_stopping_patience": 3}
    whole = train(stage, "run/one", **changes)
    assert Path(whole.state.best_model_checkpoint).name == "checkpoint-3"
    (Path("run/one") / f"checkpoint-{checkpoint}" / lost).unlink()
    again = train(stage, "run/one", **changes)
    assert again.state.global_step == whole.state.global_step
    assert_equal(again.model.state_dict(), whole.model.state_dict())


def test_a_log_holds_one_line_per_epoch(stage: ModuleType, capfd: pytest.CaptureFixture) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"train_vit": PARAMS}))
    stage.main()
    printed, errors = capfd.readouterr()
    *epochs, last = printed.splitlines()
    curves = [
        [line.split("\t")[1] for line in path.read_text().splitlines()[1:]]
        for path in (Path("metrics/train_vit/plots/metrics") / name for name in LOSSES)
    ]
    assert epochs == [
        f"epoch {epoch}: train loss {float(train):.5f}, validation loss {float(validation):.5f}"
        for epoch, (train, validation) in enumerate(zip(*curves, strict=True), 1)
    ]
    assert len(epochs) == 3
    assert last.startswith("data/models/vit: validation loss ")
    assert errors == ""


class InterruptAfter(KillAfter):
    def on_epoch_begin(self, args, state, control, **_) -> None:  # noqa: ANN001, ANN003
        if round(state.epoch) == self.epoch:
            os.kill(os.getpid(), signal.SIGINT)


@ONE_KIND
def test_ctrl_c_ends_in_one_line(
    stage: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"train_vit": PARAMS}))
    monkeypatch.setattr(stage, "Progress", lambda name: InterruptAfter(2))
    monkeypatch.setattr(sys, "argv", ["params.yaml"])  # what run() locks
    capfd.readouterr()
    assert run_forked(lambda: run(stage.main)) == 130
    assert capfd.readouterr() == ("", "interrupted; the same command goes on from here\n")
    assert list(Path("data/checkpoints/train_vit").glob("*/checkpoint-6/complete"))


def test_the_name_of_a_run_follows_params_data_and_weights(stage: ModuleType) -> None:
    params = stage.Params(**PARAMS)
    before = stage.name_of_run(params)
    assert stage.name_of_run(params) == before
    assert stage.name_of_run(stage.Params(**PARAMS | {"learning_rate": 2e-3})) != before
    for changed in (
        Path("data/weights/tiny/model.safetensors"),
        next(Path("data/dataset/validation").iterdir()),
    ):
        content = changed.read_bytes()
        changed.write_bytes(content + b"\0")
        assert stage.name_of_run(params) != before, changed
        changed.write_bytes(content)


def test_the_stage_writes_the_model_and_curves_without_durations(
    stage: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"train_vit": PARAMS}))
    stage.main()
    first = {path: path.read_bytes() for path in sorted(Path().glob("data/models/**/*.*"))}
    stage.main()
    assert {path: path.read_bytes() for path in sorted(Path().glob("data/models/**/*.*"))} == first
    curves = sorted(
        path.relative_to("metrics/train_vit").as_posix()
        for path in Path("metrics/train_vit").rglob("*")
        if path.is_file()
    )
    assert curves == [
        "metrics.json",
        "plots/metrics/train/learning_rate.tsv",
        "plots/metrics/train/loss.tsv",
        "plots/metrics/validation/loss.tsv",
    ]
    losses = pd.read_csv("data/models/vit/losses.csv")
    assert losses.columns.tolist() == ["epoch", "train", "validation"]
    written = pd.read_csv("metrics/train_vit/plots/metrics/validation/loss.tsv", sep="\t")
    assert losses.epoch.tolist() == written.step.tolist()
    np.testing.assert_allclose(losses.validation, written.loss, rtol=1e-5)
    assert not Path("data/checkpoints/train_vit").exists()
    assert "validation loss" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(900)
@ONE_KIND
@pytest.mark.parametrize(
    ("changes", "best", "epochs"),
    [
        ({"epochs": 2}, 2, 2),
        ({**WORSENING, "epochs": 2, "early_stopping_patience": 2}, 1, 2),
        ({**WORSENING, "early_stopping_patience": 1}, 1, 2),
    ],
    ids=["the last epoch is the best", "the first is the best", "it stops early"],
)
def test_killed_anywhere_in_its_clean_up_it_ends_with_the_same_bytes(
    stage: ModuleType, changes: dict, best: int, epochs: int
) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"train_vit": {**PARAMS, **changes}}))

    def outputs() -> dict[str, bytes]:
        files = [*Path("data/models").rglob("*"), *Path("metrics").rglob("*")]
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    stage.main()
    undisturbed = outputs()
    curve = Path("metrics/train_vit/plots/metrics/validation/loss.tsv").read_text().splitlines()
    losses = [float(line.split("\t")[1]) for line in curve[1:]]
    assert (losses.index(min(losses)) + 1, len(losses)) == (best, epochs)
    for number in itertools.count(1):
        for output in ("data/models/vit", "metrics/train_vit"):  # as DVC does before a stage
            shutil.rmtree(output, ignore_errors=True)
        killed = killed_at(number, stage.main)
        if not killed:
            break
        assert run_forked(stage.main) == 0
        assert outputs() == undisturbed
        assert not Path("data/checkpoints/train_vit").exists()
    assert number > 30


@ONE_KIND
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 60}, "train_vit.image_size 60 is no multiple of the patch size 14"),
        ({"frozen_blocks": 2}, "train_vit.frozen_blocks = 2 leaves none of the 2 blocks of"),
        ({"backbone": "other"}, "train_vit.backbone: model_type 'efficientnet_lite0' of"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_image_is_read(
    stage: ModuleType, changes: dict, message: str
) -> None:
    shutil.copytree("data/weights/tiny", "data/weights/other")
    Path("data/weights/other/config.json").write_text('{"model_type": "efficientnet_lite0"}')
    shutil.rmtree("data/dataset")
    Path("params.yaml").write_text(yaml.safe_dump({"train_vit": {**PARAMS, **changes}}))
    with pytest.raises(InputError, match=message):
        stage.main()


def test_another_size_than_that_of_the_weights_is_trained(stage: ModuleType) -> None:
    Path("params.yaml").write_text(yaml.safe_dump({"train_vit": PARAMS | {"image_size": 84}}))
    stage.main()
    assert vit.load(Path("data/models/vit")).inputs.image_size == (84, 84)
