"""What schemathesis sends by the OpenAPI of the service finds no 5xx and nothing undocumented."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_model
from servers import running

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from blackswan.serving.app import Service
from blackswan.serving.decisions import Decisions
from blackswan.serving.detectors import Loaded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


def test_by_its_schema(tmp_path):
    decisions = Decisions(tmp_path / "kept")
    service = Service(Loaded(make_model(), "here", "abc.dir", None), decisions=decisions)
    schemathesis = Path(sys.executable).with_name("schemathesis")
    with running(service.app) as port:
        url = f"http://127.0.0.1:{port}/openapi.json"
        options = ["--checks", CHECKS, "--max-examples", "60", "--seed", "1"]
        found = subprocess.run(
            [schemathesis, "run", url, *options, "--no-color"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    service.close()
    decisions.close()
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-1000:]
