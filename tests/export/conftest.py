"""A data set of photos of parts, and complete detectors of every kind."""

from pathlib import Path

import numpy as np
import pytest
from small_detectors import KINDS, PREPARED, draw_photo, fit
from tiny_weights import write_weights

from blackswan.data.dataset import Row, write_shards
from blackswan.data.images import encode_png
from blackswan.evaluation import model as complete
from blackswan.evaluation.thresholds import largest_threshold


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A data set of 12 normal photos to learn from, and 8 normal and 6 stained of validation."""
    folder = tmp_path_factory.mktemp("dataset")
    kinds = {"train": [False] * 12, "validation": [False] * 8 + [True] * 6}
    for split, stained in kinds.items():
        first = 0 if split == "train" else 100
        rows = [
            Row(
                path=f"{first + number}.png",
                image=encode_png(PREPARED(draw_photo(first + number, stain))),
                mask=None, label=int(stain), defect="stain" if stain else "", synthetic=stain,
                augmented=False, group=str(first + number), timestamp_s=None,
            )
            for number, stain in enumerate(stained)
        ]  # fmt: skip
        write_shards(folder, split, rows, 100, PREPARED)
    return folder


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "tiny", "dinov2")
    return folder


@pytest.fixture(scope="session")
def complete_of(tmp_path_factory, weights):
    """Return how to write a complete detector of a kind; called again, the same one."""
    known = {}

    def write(kind) -> Path:
        if kind in known:
            return known[kind]
        name, params = KINDS[kind]
        folder = tmp_path_factory.mktemp("complete")
        fitted = folder / "fit"
        fitted.mkdir()
        detector = fit(name, params, weights)
        detector.save(fitted)
        normals = [PREPARED(draw_photo(number)) for number in range(100, 108)]
        scores = detector.score(normals)
        sets = [scores.image_scores.astype(np.float64)]
        facts = complete.Facts(
            detector=name, alpha=0.2, threshold=largest_threshold(sets, 0.2),
            threshold_from="8 images", preprocessing=PREPARED, data_sha256="0" * 64,
            heatmap=complete.Scale(
                threshold=float(scores.anomaly_maps.max()), top=2 * float(scores.anomaly_maps.max())
            ),
        )  # fmt: skip
        (folder / name).mkdir()
        complete.save(folder / name, fitted, facts, sets)
        known[kind] = folder / name
        return known[kind]

    return write
