"""What a detector is worth when the camera drifts: in the README, and for the report page."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from blackswan.data.dataset import Row, write_shards
from blackswan.data.images import encode_png
from blackswan.drift.corruptions import NAMES


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """The tables of two detectors; vit ranks higher under every drift but the dust, and breaks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tools")
    for name, auroc in (("padim", 0.5), ("vit", 0.75)):
        rows = [
            (drift, kind, severity, auroc + (0.25 if drift == "dust" else 0), severity / 10, 1.0,
             {"step": 2.0, "ramp": 1.5}[kind] if name == "vit" and drift == "gamma" else None)
            for drift in NAMES
            for kind, severity in [*(("step", severity) for severity in range(6)), ("ramp", 5)]
        ]  # fmt: skip
        columns = ["drift", "kind", "severity", "image_auroc", "false_positive_rate", "recall",
                   "breaks_at"]  # fmt: skip
        path = tmp_path / f"metrics/drift/{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return tmp_path


def test_rates_are_means_over_a_kind_of_drift_best_first(tables):
    import readme

    choice, kinds, drifts = readme.drift().split("\n\n")
    assert choice == (
        "When the light changes, choose vit, of 2 measured: over 6 drifts of the light at severity "
        "3 its mean image AUROC is 0.75 and its mean recall 1.00; its promise on false alarms "
        "is void under 1 of them."
    )
    head, _, *lines = kinds.splitlines()
    assert head == "| detector | no drift | light | sharpness | sensor and file | lens | place |"
    assert [line.split(" | ")[0] for line in lines] == ["| vit", "| padim"]
    # dust is one of 17 drifts at severity 0, and one of two of the lens
    assert lines[1].split(" | ")[1:3] == ["0.51 / 0.00 / 1.00", "0.50 / 0.30 / 1.00"]
    assert lines[1].split(" | ")[5] == "0.62 / 0.30 / 1.00"
    head, _, *lines = drifts.splitlines()
    assert head == "| image AUROC / recall | vit | padim |"
    assert len(lines) == len(NAMES)
    assert "| gamma | 0.75 / 1.00, breaks at 2 | 0.50 / 1.00, no break found |" in lines
    assert "| dust | 1.00 / 1.00, no break found | 0.75 / 1.00, no break found |" in lines


def test_without_a_table_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import readme

    assert readme.drift() == ""


def test_the_file_of_the_report_says_what_it_is_of(tables, monkeypatch):
    import robustness

    image = encode_png(np.zeros((16, 16, 3), np.uint8))
    row = Row("a.png", image, None, 0, "", False, False, "a", None)
    write_shards(tables / "data/dataset", "test", [row], 1)
    (tables / "metrics/detectors").mkdir()
    (tables / "metrics/detectors/vit.json").write_text('{"threshold": 0.25}')
    robustness.main()
    found = json.loads((tables / "metrics/robustness.json").read_text())
    assert found["severity"] == 3
    assert list(found["detectors"]) == ["vit"]  # padim is no longer compared
    vit = found["detectors"]["vit"]
    assert (vit["threshold"], len(vit["test_images"])) == (0.25, 64)
    assert vit["drifts"]["gamma"] == {
        "image_auroc": 0.75, "false_positive_rate": 0.3, "recall": 1, "breaks_at": 2, "ramp": 1.5
    }  # fmt: skip
    assert vit["kinds"]["lens"]["image_auroc"] == 0.875
