"""What the gate reads of a run: broken or missing files end in one sentence."""

import json

import pandas as pd
import pytest
from conftest import make_model

from blackswan.errors import InputError
from blackswan.tracking.registry import read_tested


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (None, r"median_residual\.json is missing, which the gate asks for"),
        ("{", r"cannot be read .*; run `dvc checkout`"),
        ({}, r"has no threshold; run `dvc repro`"),
        ({"threshold": 4.0, "threshold_verdict": {}}, r"measured another model \(threshold 4"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, metrics, said):
    (tmp_path / "median_residual").mkdir()
    pd.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "median_residual/scores.parquet")
    if metrics is not None:
        text = metrics if isinstance(metrics, str) else json.dumps(metrics)
        (tmp_path / "median_residual.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_tested(make_model().facts, tmp_path, tmp_path, tmp_path)
