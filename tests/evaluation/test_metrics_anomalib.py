"""Our pixel metrics against numbers that benchmarks/anomalib/compare.py took from anomalib."""

import json
import runpy
from pathlib import Path

import pytest

from blackswan.evaluation.pixels import PixelMetrics

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "tests/data/anomalib_metrics.json").read_text())["cases"]
draw = runpy.run_path(str(ROOT / "benchmarks/anomalib/drawn_maps.py"))["draw"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}")
def test_auroc_and_aupro_agree_with_anomalib(case):
    metrics = PixelMetrics()
    for anomaly_map, mask in zip(*draw(case["seed"]), strict=True):
        metrics.add(anomaly_map, mask, group="")
    found = metrics.compute()
    assert found["pixel_auroc"] == pytest.approx(case["auroc"], abs=1e-3)
    assert found["pixel_aupro"] == pytest.approx(case["aupro"], abs=1e-3)
