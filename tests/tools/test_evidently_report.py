"""Evidently renders the log of a service, in the environment that `make evidently` sets up."""

import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from blackswan.drift import log, reference
from blackswan.drift.embedding import Components
from blackswan.drift.reference import Reference
from blackswan.seeds import generator

PYTHON = ROOT / ".evidently/bin/python"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="no .evidently; make evidently")
def test_a_log_becomes_a_page(tmp_path):
    rows = generator(0, "evidently").standard_normal((60, 3))
    components = Components(np.zeros(2), np.ones(2), np.eye(2))
    version = tmp_path / "log/a.dir"
    reference.save(version, Reference(rows, 0.0, components))
    answers = pa.Table.from_pylist(
        [{"image_score": row[0], "embedding": row[1:], "camera": "line1"} for row in rows + 2],
        log.SCHEMA,
    )
    pq.write_table(answers, version / "20260301T000000.000000Z-1-000000.parquet")
    page = tmp_path / "evidently.html"
    command = [PYTHON, ROOT / "tools/evidently_report.py", tmp_path / "log", "--out", page]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("60 answers of a.dir against 60; see ")
    text = page.read_text(encoding="utf-8")
    assert "component_1" in text
    other = subprocess.run([*command, "--camera", "line2"], capture_output=True, check=False)
    assert b"holds no answer of camera 'line2'; choose another" in other.stderr
