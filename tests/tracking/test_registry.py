"""A real MLflow with SQLite: registered behind the gate, served over HTTP, asked for the same."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Project
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackswan.data.images import encode_png, read_image
from blackswan.evaluation.model import load
from blackswan.tracking import runs
from blackswan.tracking.contract import IMAGES, OUTPUTS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mlflow")]
LENIENT = {
    "image_auroc_low": None, "false_positive_rate": 1, "expected_calibration_error": 1,
    "worse_by": 1,
}  # fmt: skip
START_SECONDS, CASES = 180, 2000


class Registry:
    """A copy of the finished project with a store of its own."""

    def __init__(self, finished, folder):
        shutil.copytree(finished.root, folder)
        self.root, self.project = folder, Project(folder)
        self.store = f"sqlite:///{folder}/mlflow.db"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        self.environment = {
            **kept, **runs.DEFAULTS, runs.STORE: self.store, "PYTHONPATH": str(ROOT),
            IMAGES: str(folder / "data/frames"),
        }  # fmt: skip
        self.mlflow = pytest.importorskip("mlflow")
        self.client = self.mlflow.MlflowClient(self.store)

    def start(self, *command):
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def blackswan(self, *arguments, before=""):
        """Run a command, after some Python where it is given; return code, output and errors."""
        code = f"{before}\nfrom blackswan.cli import app; app()"
        process = self.start(sys.executable, "-c", code, *map(str, arguments))
        printed, errors = process.communicate(timeout=300)
        return process.returncode, printed, errors

    def register(self, detector, before="", **gate):
        self.project.set(register__gate=LENIENT | gate)
        return self.blackswan("register", f"data/detectors/{detector}", before=before)

    def versions(self):
        found = self.client.search_model_versions("name='blackswan'")
        return sorted(int(version.version) for version in found)

    def champion(self):
        return int(self.client.get_model_version_by_alias("blackswan", "champion").version)

    @contextlib.contextmanager
    def serving(self, *command):
        """Start a server on a free port; yield its URL, and end all its processes."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = self.start(*(word.replace("PORT", str(port)) for word in command))
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "the server does not answer"
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200:
                        break
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # also what it started
            process.communicate()


@pytest.fixture(scope="module")
def registry(finished, tmp_path_factory):
    """Two versions of one model: padim, which is the champion, and the baseline, which is not."""
    registry = Registry(finished, tmp_path_factory.mktemp("registry") / "project")
    registry.first = registry.register("padim")
    registry.second = registry.register("median_residual", image_auroc_low=1)
    return registry


@pytest.fixture(scope="module")
def endpoint(registry):
    """The champion, served by the command."""
    command = "from blackswan.cli import app; app()"
    with registry.serving(sys.executable, "-c", command, "endpoint", "--port", "PORT") as url:
        yield url


def test_the_gate_moves_the_alias_or_says_what_is_missing(registry):
    code, printed, errors = registry.first
    assert code == 0, errors
    assert printed.startswith("blackswan version 1: new\n  holds: threshold not void")
    assert printed.endswith("blackswan version 1 is the champion\n")
    code, printed, errors = registry.second
    assert code == 1
    assert "  fails: image_auroc_low at least 1: too few independent test images" in printed
    assert "not more than 1 behind the champion: " in printed
    last = errors.splitlines()[-1]
    assert last.startswith("error: the gate keeps blackswan version 2 from being champion, which")
    assert "version 1 stays (fails: image_auroc_low at least 1: " in last
    assert (registry.versions(), registry.champion()) == ([1, 2], 1)


def test_registering_again_finds_the_version(registry):
    code, printed, errors = registry.register("padim")
    assert code == 0, errors
    assert printed.startswith("blackswan version 1: registered before\n")
    assert registry.versions() == [1, 2]


def test_a_version_leads_back_to_the_bytes(registry):
    version = registry.client.get_model_version("blackswan", "1")
    (where,) = registry.root.glob(f"mlruns/*/models/{version.source.removeprefix('models:/')}")
    manifest = json.loads((where / "artifacts/artifacts/detector/manifest.json").read_text())
    own = registry.root / "data/detectors/padim"
    named = {path.relative_to(own).as_posix() for path in own.rglob("*") if path.is_file()}
    assert manifest["files"].keys() == named | {"test_scores.parquet"}
    assert version.tags["blackswan.sha256"]
    assert [*where.rglob("*.pkl")] == []


@pytest.mark.parametrize("place", ["mlflow.pyfunc.log_model", "registry._add_version"])
def test_a_killed_registration_ends_in_one_version(finished, tmp_path, place):
    registry = Registry(finished, tmp_path / "project")
    module, name = place.rsplit(".", 1)
    imported = "import mlflow" if module.startswith("mlflow") else (
        "from blackswan.tracking import registry"
    )  # fmt: skip
    kill = (
        f"import os\n{imported}\noriginal = {place}\n"
        "def killed(*arguments, **keywords):\n"
        f"    {'original(*arguments, **keywords)' if name == 'log_model' else 'pass'}\n"
        "    os.kill(os.getpid(), 9)\n"
        f"{place} = killed"
    )
    code, *_ = registry.register("padim", before=kill)
    assert code == -signal.SIGKILL
    code, printed, errors = registry.register("padim")
    assert code == 0, errors
    assert printed.startswith("blackswan version 1: new\n")
    assert (registry.versions(), registry.champion()) == ([1], 1)
    experiment = registry.client.get_experiment_by_name("blackswan").experiment_id
    named = [run.info.status for run in registry.client.search_runs([experiment])]
    assert named == ["FINISHED"]


def test_a_changed_artifact_is_not_loaded(finished, tmp_path):
    registry = Registry(finished, tmp_path / "project")
    assert registry.register("median_residual")[0] == 0
    (changed,) = registry.root.glob("mlruns/*/models/*/artifacts/artifacts/detector/model.json")
    changed.write_text(changed.read_text().replace('"alpha": 0.2', '"alpha": 0.3'))
    code, _, errors = registry.blackswan("endpoint", "models:/blackswan/1")
    assert code == 1
    assert "model.json differs from" in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_the_service_serves_the_champion_by_the_hash_of_its_folder(registry):
    pytest.importorskip("prometheus_client")
    command = "from blackswan.cli import app; app()"
    arguments = ["serve", "models:/blackswan@champion", "--port", "PORT"]
    with registry.serving(sys.executable, "-c", command, *arguments) as url:
        (detector,) = httpx.get(f"{url}/v1/detectors").json()["detectors"]
        frame = sorted((registry.root / "data/frames").rglob("*.png"))[0]
        answer = httpx.post(f"{url}/v1/score", files={"a": frame.read_bytes()}, timeout=60).json()
    own = registry.root / "data/detectors/padim"
    assert (detector["hash"], detector["version"]) == (runs.dvc_hash(own), "1")
    expected = load(own).score([read_image(frame)]).image_scores[0]
    assert answer["results"][0]["image_score"] == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["endpoint", "models:/blackswan@nobody"], "loading models:/blackswan@nobody failed ("),
        (["endpoint", "models:/blackswan/99"], "loading models:/blackswan/99 failed ("),
        (["register", "data/detectors/none"], "data/detectors/none is no complete model"),
        (["serve", "models:/blackswan@nobody"], "looking up models:/blackswan@nobody failed ("),
        (["serve", "models:/blackswan/99"], "fetching models:/blackswan/99 failed ("),
    ],
)
def test_what_does_not_exist_ends_in_one_sentence(registry, arguments, said):
    code, _, errors = registry.blackswan(*arguments)
    assert code == 1
    assert errors.splitlines()[-1].startswith(f"error: {said}")
    assert "Traceback" not in errors


def test_a_registry_that_is_down_ends_in_one_sentence(registry):
    environment = registry.environment
    try:
        registry.environment = environment | {
            runs.STORE: "http://127.0.0.1:9",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        code, _, errors = registry.register("padim")
    finally:
        registry.environment = environment
    assert code == 1
    assert "the store of MLFLOW_TRACKING_URI does not answer" in errors.splitlines()[-1]
    assert "Traceback" not in errors


def frames_of(registry, count=3):
    return sorted((registry.root / "data/frames/images").rglob("*.png"))[:count]


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


FORMS = {
    "dataframe_split": lambda name, values: {"columns": [name], "data": [[v] for v in values]},
    "dataframe_records": lambda name, values: [{name: value} for value in values],
    "instances": lambda name, values: [{name: value} for value in values],
    "inputs": lambda name, values: {name: values},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("column", ["image", "path"])
def test_every_form_of_payload_is_answered_alike(registry, endpoint, form, column):
    paths = frames_of(registry)
    values = [encoded(path) if column == "image" else str(path) for path in paths]
    body = {form: FORMS[form](column, values), "params": {"heatmap": True, "regions": 1}}
    response = httpx.post(f"{endpoint}/invocations", json=body, timeout=60)
    assert response.status_code == 200, response.text
    found = pd.DataFrame(response.json()["predictions"])
    model = load(registry.root / "data/detectors/padim")
    own = model.score([read_image(path) for path in paths])
    assert found.columns.tolist() == list(OUTPUTS)
    assert abs(found.image_score - own.image_scores).max() <= 1e-6
    assert found.threshold.tolist() == [model.facts.threshold] * 3  # to the last bit
    assert base64.b64decode(found.heatmap[0]).startswith(b"\x89PNG")


def test_mlflows_own_server_gives_the_same_and_invoke_verifies(registry, tmp_path):
    command = "mlflow models serve -m models:/blackswan@champion --port PORT --env-manager local"
    with registry.serving(sys.executable, "-m", *command.split()) as url:
        clip, own = "data/raw/clip.avi", "data/detectors/padim"
        out = tmp_path / "served"
        code, printed, errors = registry.blackswan(
            "invoke", url, clip, "--out", out, "--verify", own
        )
        assert code == 0, errors
        assert printed.endswith("every score is that of data/detectors/padim\n")
        assert registry.blackswan("score", own, clip, "--out", tmp_path / "own")[0] == 0
        served, scored = (pd.read_parquet(tmp_path / name / "verdicts.parquet") for name in
                          ("served", "own"))  # fmt: skip
        assert abs(served.image_score - scored.image_score).max() <= 1e-6
        same = ["path", "time_s", "p_value", "threshold", "verdict"]
        pd.testing.assert_frame_equal(served[same], scored[same])
        refused = httpx.post(f"{url}/invocations", json={"dataframe_records": [{"image": "%"}]})
        assert refused.status_code == 400
        assert "image of row 0 is not base64" in refused.json()["message"]
        assert "Traceback" not in refused.text
        other = "data/detectors/median_residual"
        code, _, errors = registry.blackswan(
            "invoke", url, clip, "--out", tmp_path / "other", "--verify", other
        )
        assert code == 1
        assert "gives clip/0000" in errors.splitlines()[-1]


def test_the_endpoint_refuses_in_one_sentence(registry, endpoint):
    url = f"{endpoint}/invocations"
    large = httpx.post(url, content=b" " * 16_000_001, headers={"Content-Type": "application/json"})
    assert (large.status_code, "more than 16,000,000 bytes" in large.json()["message"]) == (
        413,
        True,
    )
    for body, said in [
        (b"{", "valid JSON"),
        (b'{"dataframe_records": [{"image": "%"}]}', "image of row 0 is not base64"),
        (b'{"dataframe_records": [{"path": "/etc/passwd"}]}', "path of row 0 names no file of"),
        (b'{"dataframe_records": [{"a": 1}]}', "the request holds no image"),
        (b'{"dataframe_records": [], "params": {"regions": NaN}}', "regions"),
    ]:
        response = httpx.post(url, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 400
        assert said in response.json()["message"]
        assert response.json().keys() == {"error_code", "message"}
        assert "\n" not in response.json()["message"]


PIXELS = base64.b64encode(encode_png(np.full((40, 48, 3), 90, "uint8"))).decode()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.just(PIXELS) | st.just("/etc/passwd"),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["image", "path", "columns", "data", "index", "b64", ""])
                      | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
ROWS = st.lists(st.dictionaries(st.sampled_from(["image", "path", "other"]), JSON), max_size=4)
GOOD = st.fixed_dictionaries(
    {"dataframe_records": st.lists(st.just({"image": PIXELS}), min_size=1, max_size=2)},
    optional={
        "params": st.fixed_dictionaries(
            {}, optional={"heatmap": st.booleans(), "regions": st.integers(-1, 101)}
        )
    },
)
ANY = st.fixed_dictionaries(
    {},
    optional={
        "dataframe_records": ROWS | JSON, "instances": ROWS | JSON, "inputs": ROWS | JSON,
        "dataframe_split": st.fixed_dictionaries(
            {}, optional={"columns": st.just(["image"]) | JSON, "data": JSON, "index": JSON}
        ) | JSON,
        "params": st.fixed_dictionaries({}, optional={"heatmap": JSON, "regions": JSON}) | JSON,
        "messages": JSON, "prompt": JSON,
    },
)  # fmt: skip


def test_no_payload_makes_the_endpoint_fail_or_show_its_inside(endpoint):
    seen = set()

    @settings(
        max_examples=CASES, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(
        body=ANY | GOOD, kind=st.sampled_from([*["application/json"] * 8, "text/csv", "a/b", ""])
    )
    def ask(body, kind):
        content = json.dumps(body).encode("utf-8", "surrogatepass")
        headers = {"Content-Type": kind}
        response = client.post(f"{endpoint}/invocations", content=content, headers=headers)
        seen.add(response.status_code)
        assert response.status_code < 500, response.text
        assert "Traceback" not in response.text
        assert "site-packages" not in response.text
        if response.status_code != 200:
            assert response.json().keys() == {"error_code", "message"}

    with httpx.Client(timeout=20) as client:
        ask()
        good = {"dataframe_records": [{"image": PIXELS}]}
        assert client.post(f"{endpoint}/invocations", json=good).status_code == 200
    assert {200, 400, 415} <= seen
