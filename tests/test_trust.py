"""No test image reaches what judges it: model, threshold, p-values and colour scale."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blackswan.data.dataset import SCHEMA
from blackswan.data.images import decode_image, encode_png
from blackswan.evaluation.calibration import read_scores, sets_of
from blackswan.evaluation.thresholds import largest_p_values

NAME = "padim"
FROM_VALIDATION = ("threshold", "threshold_from", "heatmap")


def replace_test_split_by_noise(project):
    """Write other pixels into every row of the test split, and leave its facts."""
    rng = np.random.default_rng(0)
    for path in sorted((project.root / "data/dataset/test").iterdir()):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            shape = decode_image(row["image"]["bytes"]).shape
            noise = rng.integers(0, 256, shape).astype(np.uint8)
            row["image"]["bytes"] = encode_png(noise)
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)


def test_a_test_split_of_noise_leaves_model_threshold_and_p_values(tiny_project):
    root = tiny_project.root
    model = tiny_project.outputs(f"data/models/{NAME}")
    metrics = json.loads((root / f"metrics/detectors/{NAME}.json").read_text())
    scores = pd.read_parquet(root / f"data/scores/{NAME}/scores.parquet")
    others = {
        name: content
        for name, content in tiny_project.outputs("data/dataset").items()
        if "/test/" not in name
    }

    replace_test_split_by_noise(tiny_project)
    tiny_project.run("fit_detector", NAME)
    tiny_project.run("evaluate_detector", NAME)

    assert tiny_project.outputs(f"data/models/{NAME}") == model
    after = json.loads((root / f"metrics/detectors/{NAME}.json").read_text())
    for key in FROM_VALIDATION:
        assert json.dumps(after[key]) == json.dumps(metrics[key])
    assert others.items() <= tiny_project.outputs("data/dataset").items()

    # The noise did arrive: all scores are new, yet their p-values come from the same normal scores.
    noisy = pd.read_parquet(root / f"data/scores/{NAME}/scores.parquet")
    assert (noisy.image_score != scores.image_score).all()
    assert after["image_auroc"] != metrics["image_auroc"]
    normal = sets_of(read_scores(root / f"data/models/{NAME}"), "image_score")
    for table in (scores, noisy):
        expected = largest_p_values(table.image_score.to_numpy(), normal, 0.2)
        assert table.p_value.to_numpy().tobytes() == expected.tobytes()


def test_validation_does_move_the_threshold(tiny_project):
    """The counterpart: the check above would notice a threshold that came from somewhere else."""
    metrics = json.loads((tiny_project.root / f"metrics/detectors/{NAME}.json").read_text())
    tiny_project.set(evaluate__alpha=0.5)
    tiny_project.run("evaluate_detector", NAME)
    after = json.loads((tiny_project.root / f"metrics/detectors/{NAME}.json").read_text())
    assert after["threshold"] < metrics["threshold"]
