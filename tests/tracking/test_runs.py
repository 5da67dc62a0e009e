"""Runs in a real store of MLflow, SQLite in a file, and none where no store is named."""

import json
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

from blackswan.errors import InputError
from blackswan.tracking import runs
from blackswan.tracking.runs import Record, Tracker, dvc_hash, numbers


def test_numbers_are_named_by_where_they_stand():
    nested = {"a": 1, "b": {"c": 0.5, "d": {"e": True}}, "f": "text", "g": None, "h": [1]}
    assert dict(numbers(nested)) == {"a": 1.0, "b.c": 0.5, "b.d.e": 1.0}


def test_without_a_store_nothing_is_imported(monkeypatch):
    code = (
        "import sys\n"
        "from blackswan.tracking.runs import Record, Tracker\n"
        "Tracker('a').record(Record(params={}, reads=[None]))\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'mlflow']"
    )
    monkeypatch.delenv(runs.STORE, raising=False)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_store_without_mlflow_is_named_before_any_work(monkeypatch):
    monkeypatch.setenv(runs.STORE, "sqlite:///none.db")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"MLFLOW_TRACKING_URI is set and MLflow is not installed"):
        Tracker("fit_detector padim")


def test_hashes_are_those_of_dvc_lock(tmp_path, monkeypatch):
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "folder/a.txt").write_text("a")
    (tmp_path / "folder/inner/b.txt").write_text("b")
    stages = {"copy": {"cmd": "true", "deps": ["folder", "folder/a.txt"]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for command in ("init --quiet --no-scm", "repro --quiet"):
        subprocess.run([sys.executable, "-m", "dvc", *command.split()], check=True, cwd=tmp_path)
    lock = yaml.safe_load((tmp_path / "dvc.lock").read_text())
    for dependency in lock["stages"]["copy"]["deps"]:
        assert dvc_hash(tmp_path / dependency["path"]) == dependency["md5"]


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Name a store in a file; return how to ask it for its runs."""
    mlflow = pytest.importorskip("mlflow")
    place = f"sqlite:///{tmp_path}/runs.db"
    for name, value in runs.DEFAULTS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(runs.STORE, place)
    monkeypatch.delenv(runs.EXPERIMENT, raising=False)
    monkeypatch.chdir(tmp_path)

    def search():
        client = mlflow.MlflowClient(place)
        found = client.get_experiment_by_name("blackswan")
        return client, client.search_runs([found.experiment_id])

    return search


@pytest.mark.slow
def test_a_run_leads_back_to_the_bytes(store, tiny_project, monkeypatch):
    before = tiny_project.outputs()
    for stage in ("fit_detector", "evaluate_detector"):
        tiny_project.run(stage, "padim")
    assert tiny_project.outputs() == before  # no byte depends on MLflow
    client, found = store()
    named = {run.info.run_name: run for run in found}
    assert sorted(named) == ["evaluate_detector padim", "fit_detector padim"]
    fitted, judged = named["fit_detector padim"], named["evaluate_detector padim"]
    assert fitted.data.params["detectors.padim.backbone"] == "tiny"
    assert fitted.data.params["detectors.padim.layers"] == "[1, 2]"
    model = dvc_hash(tiny_project.root / "data/models/padim")
    assert fitted.data.tags["dvc.data/models/padim"] == model
    assert judged.data.tags["dvc.data/models/padim"] == model
    assert "dvc.data/dataset/train" in fitted.data.tags
    assert "dvc.data/dataset/test" not in fitted.data.tags  # what learns reads none of it
    metrics = json.loads((tiny_project.root / "metrics/detectors/padim.json").read_text())
    for name, value in numbers(metrics):
        assert judged.data.metrics[name] == pytest.approx(value, rel=1e-5), name
    listed = [file.path for file in client.list_artifacts(judged.info.run_id, "padim")]
    assert "padim/roc.csv" in listed
    assert {run.info.status for run in found} == {"FINISHED"}


@pytest.mark.slow
def test_curves_have_their_steps_and_names_fit(store, tmp_path):
    (tmp_path / "losses.csv").write_text("epoch,train,validation\n1,0.5,0.7\n2,0.25,\n")
    many = {f"defect ({number})": number for number in range(1200)} | {"x" * 300: 1}
    record = Record(params={}, metrics=many, curves=tmp_path / "losses.csv")
    Tracker("train_vit").record(record)
    client, [run] = store()
    points = client.get_metric_history(run.info.run_id, "train")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.25)]
    assert len(client.get_metric_history(run.info.run_id, "validation")) == 1
    assert run.data.metrics["defect _1199_"] == 1199
    assert run.data.metrics["x" * 250] == 1


@pytest.mark.slow
def test_the_runs_of_one_dvc_repro_have_one_parent(store, monkeypatch):
    class Process:
        pid = 7

        def create_time(self):
            return 1000.5

    monkeypatch.setattr(runs, "_dvc_process", Process)
    for name in ("fit_detector padim", "evaluate_detector padim"):
        Tracker(name).record(Record(params={}))
    _, found = store()
    [parent] = [run for run in found if runs.REPRO in run.data.tags]
    children = [run for run in found if run is not parent]
    assert [run.data.tags["mlflow.parentRunId"] for run in children] == [parent.info.run_id] * 2


@pytest.mark.slow
def test_a_store_that_is_down_is_named_before_any_work_and_no_secret_with_it(monkeypatch):
    pytest.importorskip("mlflow")
    word = "hunter" * 2
    monkeypatch.setenv(runs.STORE, f"http://user:{word}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI does not answer") as caught:
        Tracker("fit_detector padim")
    assert word not in str(caught.value)


@pytest.mark.slow
def test_what_is_no_store_is_named(monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv(runs.STORE, "foo://bar")
    with pytest.raises(InputError, match="the store of MLFLOW_TRACKING_URI does not answer"):
        Tracker("fit_detector padim")


@pytest.mark.slow
def test_a_deleted_experiment_is_named(store):
    Tracker("a").record(Record(params={}))
    client, [run] = store()
    client.delete_experiment(run.info.experiment_id)
    with pytest.raises(InputError, match="the experiment blackswan of .* was deleted; restore it"):
        Tracker("a")


@pytest.mark.slow
def test_a_run_that_cannot_be_filled_is_taken_back(store, capsys, monkeypatch):
    def fail(curves):
        raise RuntimeError("broken")

    monkeypatch.setattr(runs, "_points", fail)
    Tracker("a").record(Record(params={}))
    assert "MLflow has no run of a (broken)" in capsys.readouterr().err
    assert store()[1] == []


@pytest.mark.slow
def test_a_store_that_fails_at_the_end_ends_no_stage(store, capsys, monkeypatch, tmp_path):
    def fail(path):
        raise OSError("gone")

    tracker = Tracker("fit_detector padim")
    monkeypatch.setattr(runs, "dvc_hash", fail)
    tracker.record(Record(params={}, reads=[tmp_path]))
    assert "MLflow has no run of fit_detector padim (gone)" in capsys.readouterr().err
    assert store()[1] == []
