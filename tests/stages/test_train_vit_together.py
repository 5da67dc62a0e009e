"""The training stage on two processes of torchrun, on the CPU: what one learns, once written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from tiny_training import PARAMS, write_project

from blackswan.data.dataset import Split
from blackswan.data.images import decode_image
from blackswan.detectors import vit

STAGE = ROOT / "stages/train_vit.py"
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TOLERANCE = 1e-5  # of a loss and of a probability
KILLED = """
import os, runpy, signal, sys
from blackswan.networks import callbacks

save = callbacks.KeepCheckpoints.on_save

def save_and_die(self, args, state, control, **more):
    save(self, args, state, control, **more)
    if round(state.epoch) == 2 and os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)

callbacks.KeepCheckpoints.on_save = save_and_die
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess:
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def outputs(folder: Path) -> dict[str, bytes]:
    files = [*folder.glob("data/models/**/*"), *folder.glob("metrics/**/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that two processes have trained, its first block frozen."""
    folder = write_project(tmp_path_factory.mktemp("together"), frozen_blocks=1)
    done = run(folder, *TWO, str(STAGE))
    assert done.returncode == 0, done.stderr
    printed = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert printed == ["epoch 1", "epoch 2", "epoch 3", "data/models/vit"]  # by one of them
    return folder


def assert_close(one: Path, two: Path) -> None:
    """Compare what is learnt: Adam moves a weight that changes no output by its rounding alone."""
    losses = [pd.read_csv(folder / "data/models/vit/losses.csv") for folder in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=TOLERANCE)
    split = Split(one / "data/dataset", "validation")
    for index in range(len(split)):
        image = decode_image(split[index].image)
        scores = [vit.load(folder / "data/models/vit").score([image]) for folder in (one, two)]
        for name in ("image_scores", "patch_scores"):
            first, second = (getattr(score, name) for score in scores)
            np.testing.assert_allclose(second, first, rtol=0, atol=TOLERANCE)
    assert outputs(one).keys() == outputs(two).keys()
    assert not (two / "data/checkpoints/train_vit").exists()


def test_two_processes_learn_what_one_learns(together: Path, tmp_path: Path) -> None:
    alone = write_project(tmp_path, frozen_blocks=1)
    assert run(alone, sys.executable, str(STAGE)).returncode == 0
    assert_close(alone, together)


def test_so_they_do_with_every_block_trained(tmp_path: Path) -> None:
    folders = [write_project(tmp_path / name) for name in ("alone", "together")]
    for folder, command in zip(folders, ([sys.executable], TWO), strict=True):
        done = run(folder, *command, str(STAGE))
        assert done.returncode == 0, done.stderr
    assert_close(*folders)


def test_two_that_are_killed_end_with_the_bytes_of_two_that_were_not(
    together: Path, tmp_path: Path
) -> None:
    folder = write_project(tmp_path / "project", frozen_blocks=1)
    (tmp_path / "killed.py").write_text(KILLED)
    killed = run(folder, *TWO, str(tmp_path / "killed.py"), str(STAGE))
    assert killed.returncode != 0
    assert f"Signal {signal.SIGKILL.value}" in killed.stderr
    assert not (folder / "data/models").exists()
    [last] = folder.glob("data/checkpoints/train_vit/*/checkpoint-8/complete")
    done = run(folder, *TWO, str(STAGE))
    assert done.returncode == 0, done.stderr
    assert not last.exists()
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "epoch 3",
        "data/models/vit",
    ]
    assert outputs(folder) == outputs(together)


def test_an_error_of_both_is_one_sentence(tmp_path: Path) -> None:
    folder = write_project(tmp_path)
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_vit": PARAMS | {"batch_size": 3}}))
    done = run(folder, *TWO, str(STAGE))
    assert done.returncode == 1
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert sentences == [
        "error: train_vit.batch_size = 3 cannot be shared by 2 processes; choose a multiple of 2, "
        "such as 2, or start another number of processes"
    ]
    assert not (folder / "data/models").exists()
