"""TorchDistributor runs the training stage in local mode, on processes of this machine."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT
from tiny_training import write_project

from blackswan.distributed.training import train
from blackswan.errors import InputError

LAUNCHER = [sys.executable, "-m", "blackswan.distributed.training", "--processes"]


def needs_spark(test):
    """Mark a test that starts Spark on this machine."""
    missing = not find_spec("pyspark") or not shutil.which("java")
    for mark in (
        pytest.mark.slow,
        pytest.mark.timeout(300),
        pytest.mark.xdist_group("spark"),
        pytest.mark.skipif(missing, reason="the extra spark or Java is missing"),
    ):
        test = mark(test)
    return test


def launch(folder: Path, processes: int) -> subprocess.CompletedProcess:
    (folder / "stages").mkdir()
    (folder / "stages/train_vit.py").write_text((ROOT / "stages/train_vit.py").read_text())
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*LAUNCHER, str(processes)],
        cwd=folder, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


@needs_spark
def test_the_distributor_runs_the_stage_on_two_processes(tmp_path):
    folder = write_project(tmp_path, frozen_blocks=1)
    done = launch(folder, 2)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("data/models/vit: ")]
    assert len(printed) == 1
    assert (folder / "data/models/vit/model.safetensors").exists()
    assert (folder / "metrics/train_vit/metrics.json").exists()
    assert not (folder / "data/checkpoints/train_vit").exists()


@needs_spark
def test_an_error_of_the_stage_ends_it_in_sentences(tmp_path):
    folder = write_project(tmp_path, batch_size=3)
    done = launch(folder, 2)
    assert done.returncode == 1
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert [line[:45] for line in said] == [
        "error: train_vit.batch_size = 3 cannot be sha",
        "error: one of 2 processes of stages/train_vit",
    ]
    assert done.stderr.splitlines()[-1] == said[1]


def test_a_folder_without_the_stage_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no stages/train_vit.py; name the top of the repo"):
        train(tmp_path, 2)


def test_missing_packages_and_java_are_told(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyspark.sql", None)
        with pytest.raises(
            InputError, match=r"Spark is not installed; `pip install -e .\[spark\]`"
        ):
            train(ROOT, 2)
    pytest.importorskip("pyspark")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="Java is missing, which Spark needs; install Java 17"):
        train(ROOT, 2)


def test_nodes_need_the_session_of_their_cluster():
    pytest.importorskip("pyspark")
    with pytest.raises(InputError, match="across_nodes has no Spark session; call it where"):
        train(ROOT, 2, across_nodes=True)
