"""The table over sources and seeds."""

import numpy as np
import pandas as pd
import pytest

from tools import leaderboard


def run(seed, category, value):
    return {
        "rev": "1234567",
        "data": {
            "params": {
                "params.yaml": {
                    "data": {
                        "source": {"path": "data/raw/mvtec"},
                        "extract_frames": {"category": category},
                        "fit_detector": {"seed": seed},
                    }
                }
            },
            "metrics": {"metrics/summary.json": {"data": {"padim": {"image_auroc": value}}}},
        },
    }


def shown():
    queued = {"revs": [{"rev": "7654321", "data": None}]}
    runs = [run(1, "tile", 0.8), run(1, "tile", 0.8), run(0, "gears", 0.7)]
    return [
        {**run(0, "tile", 0.1), "rev": "workspace"},
        {**run(0, "tile", 0.9), "experiments": [queued, *({"revs": [each]} for each in runs)]},
    ]


def test_mean_and_spread_are_over_seeds_and_a_repeated_seed_counts_once():
    runs = pd.DataFrame(leaderboard.iterate_runs(shown()))
    table = leaderboard.tabulate(runs, pd.read_csv(leaderboard.PAPERS))
    assert table.source.tolist() == ["gears", "tile"]
    gears, tile = table.to_dict("records")
    assert tile["seeds"] == 2
    assert tile["image_auroc"] == pytest.approx(0.85)
    assert tile["image_auroc_spread"] == pytest.approx(np.std([0.9, 0.8], ddof=1))
    assert tile["paper_image_auroc"] == 0.95
    assert np.isnan([gears["paper_image_auroc"], gears["image_auroc_spread"]]).all()
    assert np.isnan(tile["pixel_auroc"])
