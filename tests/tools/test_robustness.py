"""The table of the README that says what a detector is worth when the camera drifts."""

import pandas as pd
from conftest import ROOT

from blackswan.drift.corruptions import NAMES


def test_rates_are_means_over_a_kind_of_drift_best_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import readme

    assert readme.robustness() == ""
    for name, auroc in (("padim", 0.5), ("vit", 0.75)):
        rows = [
            (drift, kind, severity, auroc + (0.25 if drift == "dust" else 0), severity / 10, 1.0)
            for drift in NAMES
            for kind, severity in [*(("step", severity) for severity in range(6)), ("ramp", 3)]
        ]
        columns = ["drift", "kind", "severity", "image_auroc", "false_positive_rate", "recall"]
        path = tmp_path / f"metrics/drift/{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    head, _, *lines = readme.robustness().splitlines()
    assert head == "| detector | no drift | light | sharpness | sensor and file | lens | place |"
    assert [line.split(" | ")[0] for line in lines] == ["| vit", "| padim"]
    # dust is one of 17 drifts at severity 0, and one of two of the lens
    assert lines[1].split(" | ")[1:3] == ["0.51 / 0.00 / 1.00", "0.50 / 0.30 / 1.00"]
    assert lines[1].split(" | ")[5] == "0.62 / 0.30 / 1.00"
