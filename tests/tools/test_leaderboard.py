"""The table over sources and seeds."""

import io
import json

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
                        "train_vit": {"seed": 0, "epochs": 2},
                    }
                }
            },
            "metrics": {
                "metrics/summary.json": {
                    "data": {
                        "padim": {"image_auroc": value},
                        "vit": {"image_auroc": 0.6},
                        "median_residual": {"image_auroc": 0.5},
                    }
                }
            },
        },
    }


def test_runs_with_other_settings_have_lines_of_their_own(monkeypatch, capsys):
    runs = shown()
    other = run(2, "tile", 0.3)
    other["data"]["params"]["params.yaml"]["data"]["train_vit"]["epochs"] = 9
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([*runs, other])))
    leaderboard.main()
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:4] == ["source", "settings", "detector", "seeds"]
    padim = {(line[0], line[1]): line[3:5] for line in lines if line[2] == "padim"}
    assert padim == {
        ("gears", ""): ["1", "0.7000"],
        ("tile", "train_vit.epochs=2"): ["2", "0.8500"],
        ("tile", "train_vit.epochs=9"): ["1", "0.3000"],
    }


def shown():
    queued = {"revs": [{"rev": "7654321", "data": None}]}
    runs = [run(1, "tile", 0.8), run(1, "tile", 0.8), run(0, "gears", 0.7)]
    return [
        {**run(0, "tile", 0.1), "rev": "workspace"},
        {**run(0, "tile", 0.9), "experiments": [queued, *({"revs": [each]} for each in runs)]},
    ]


def test_mean_and_spread_are_over_seeds_and_a_repeated_seed_counts_once():
    runs = pd.DataFrame(leaderboard.iterate_runs(shown())).assign(settings="")
    table = leaderboard.tabulate(runs, pd.read_csv(leaderboard.PAPERS))
    assert table.source.tolist() == ["gears"] * 3 + ["tile"] * 3
    gears, tile = table[table.detector == "padim"].to_dict("records")
    assert tile["seeds"] == 2
    assert tile["image_auroc"] == pytest.approx(0.85)
    assert tile["image_auroc_spread"] == pytest.approx(np.std([0.9, 0.8], ddof=1))
    assert tile["paper_image_auroc"] == 0.95
    assert np.isnan([gears["paper_image_auroc"], gears["image_auroc_spread"]]).all()
    assert np.isnan(tile["pixel_auroc"])
    others = table[table.detector != "padim"]
    assert others.seeds.tolist() == [1] * 4  # what was not drawn anew is no second run
