import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from safetensors.torch import save_file
from servers import hanging_up
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


def test_a_hub_out_of_reach_is_asked_once_and_the_earlier_weights_stay(tmp_path):
    earlier = tmp_path / "data/weights/google/vit-base-patch16-224/weights.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    block = {"fetch_weights": {HUB["repository"]: HUB}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(block))
    environment = {
        **os.environ,
        "PYTHONPATH": str(STAGE.parents[1]),
        "HF_HOME": str(tmp_path / "hub"),
    }
    command = [sys.executable, STAGE, HUB["repository"]]
    with hanging_up() as (port, calls):
        environment["HF_ENDPOINT"] = f"http://127.0.0.1:{port}"
        process = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    asked = [call for call in calls if HUB["repository"].encode() in call]
    assert len(asked) == 1  # the hub's own client would go on for 24 seconds
    assert process.returncode == 1
    assert process.stderr.startswith("error: fetch_weights.google/vit-base-patch16-224: ")
    assert "use vit_small" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    assert earlier.read_text() == "earlier"


SECRET = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"  # pragma: allowlist secret


@pytest.fixture
def hub():
    """A hub that knows no repository: its address, and the headers it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            seen.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("X-Error-Message", f"no {seen[-1]}")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()


def run_with(folder, **environment):
    """Run the stage as a process and return the one line that it ends with."""
    block = {"fetch_weights": {"base": HUB}}
    (folder / "params.yaml").write_text(yaml.safe_dump(block))
    clean = {key: value for key, value in os.environ.items() if "PROXY" not in key.upper()}
    paths = {"PYTHONPATH": str(STAGE.parents[1]), "HF_HOME": str(folder / "hub")}
    process = subprocess.run(
        [sys.executable, STAGE, "base"], cwd=folder, capture_output=True, text=True, check=False,
        env=clean | paths | environment,
    )  # fmt: skip
    assert process.returncode == 1
    assert process.stdout == ""
    assert SECRET not in process.stderr
    assert len(process.stderr.splitlines()) == 1
    return process.stderr


def test_a_token_with_a_line_end_reaches_the_hub_without_it(tmp_path, hub):
    address, seen = hub
    said = run_with(tmp_path, HF_ENDPOINT=address, HF_TOKEN=f"{SECRET}\r\n")
    assert "does not exist or is private; correct the name or set HF_TOKEN" in said
    assert f"Bearer {SECRET}" in seen
    assert set(seen) <= {None, f"Bearer {SECRET}"}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"HF_TOKEN": f"{SECRET}\r\nx"}, "error: HF_TOKEN holds a space, a control character"),
        ({"HTTP_PROXY": f"foo://me:{SECRET}@127.0.0.1:9"}, "Unknown scheme for proxy URL"),
        ({"HTTP_PROXY": f"http://me:{SECRET}/x@127.0.0.1:9"}, "cannot be downloaded (InvalidURL)"),
        ({"HF_ENDPOINT": f"http://me:{SECRET}@127.0.0.1:9"}, "Connection refused"),
    ],
)
def test_what_opens_the_hub_is_never_printed(tmp_path, environment, said):
    assert said in run_with(tmp_path, **{"HF_ENDPOINT": "http://127.0.0.1:9"} | environment)


@pytest.mark.parametrize("name", ["org/model-v1.5", "a; touch x", "../up"])
def test_a_name_that_dvc_cannot_look_up_is_refused_first(stage, tmp_path, name):
    with pytest.raises(InputError, match=r"^fetch_weights: the name .* may hold only letters"):
        stage(name, HUB)
    assert not (tmp_path / "data").exists()


def test_a_repository_may_have_a_dot(stage, monkeypatch):
    asked = []
    monkeypatch.setattr("blackswan.networks.weights._download", lambda *args: asked.append(args[1]))
    monkeypatch.setattr("blackswan.networks.weights.shutil.copyfile", lambda *_: None)
    stage("org/model-v1_5", HUB | {"repository": "org/model-v1.5"})
    assert {hub.repository for hub in asked} == {"org/model-v1.5"}
