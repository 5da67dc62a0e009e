import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file
from torch import zeros

from blackswan.errors import InputError

STAGE = Path(__file__).parents[2] / "stages" / "fetch_weights.py"
HUB = {
    "source": "hub",
    "repository": "google/vit-base-patch16-224",
    "revision": "3f49326eb077187dfe1c2a2bb15fbd74e6ab91e3",
    "sha256": None,
    "licence": "Apache-2.0",
    "note": "the model of the original work",
}


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Return a function that runs main() for one name and one block of params."""
    spec = importlib.util.spec_from_file_location("fetch_weights", STAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def main(name, block):
        Path("params.yaml").write_text(yaml.safe_dump({"fetch_weights": {name: block}}))
        monkeypatch.setattr(sys, "argv", ["fetch_weights.py", name])
        module.main()

    return main


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that holds the three files, and its sha256."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({"weight": zeros(3)}, folder / "model.safetensors")
    for file in ("config.json", "preprocessor_config.json"):
        (folder / file).write_text("{}")
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return {
        "source": "folder",
        "path": "checkpoint",
        "sha256": sha256,
        "licence": "ours",
        "note": "zeros",
    }


def test_a_name_with_a_slash_becomes_a_folder_in_a_folder(stage, tmp_path, checkpoint, capsys):
    stage("ours/zeros", checkpoint)
    assert capsys.readouterr().out == "data/weights/ours/zeros: ours; zeros\n"
    written = sorted(path.name for path in (tmp_path / "data/weights/ours/zeros").iterdir())
    assert written == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "weights.json",
    ]


def test_a_misspelt_key_is_named_in_full(stage):
    with pytest.raises(InputError, match=r"fetch_weights.base.revison .*did you mean revision\?"):
        stage("base", {**HUB, "revison": "x"})
    with pytest.raises(InputError, match="fetch_weights.base.source = 'torrent'"):
        stage("base", {**HUB, "source": "torrent"})
    with pytest.raises(InputError, match="fetch_weights.base.revision = 'main'"):
        stage("base", {**HUB, "revision": "main"})


def test_a_hub_out_of_reach_ends_soon_and_leaves_the_earlier_weights(tmp_path):
    earlier = tmp_path / "data/weights/google/vit-base-patch16-224/weights.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    block = {"fetch_weights": {HUB["repository"]: HUB}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(block))
    environment = {
        **os.environ,
        "PYTHONPATH": str(STAGE.parents[1]),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
    }
    command = [sys.executable, STAGE, HUB["repository"]]
    started = time.monotonic()
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert time.monotonic() - started < 20  # of which nearly all is importing torch
    assert process.returncode == 1
    assert process.stderr.startswith("error: fetch_weights.google/vit-base-patch16-224: ")
    assert "use vit_small" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    assert earlier.read_text() == "earlier"
