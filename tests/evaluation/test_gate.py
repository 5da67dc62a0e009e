"""The gate: every condition says what was found and by how much it fails."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from blackswan.evaluation.gate import Difference, Params, compare, conditions, weighted_auroc

PARAMS = Params(
    image_auroc_low=0.8, false_positive_rate=0.15, expected_calibration_error=0.1, worse_by=0.02
)
GOOD = {
    "image_auroc": 0.95,
    "image_auroc_low": 0.9,
    "false_positive_rate": 0.05,
    "threshold_verdict": {"verdict": "holds", "flags": 2, "images": 40},
}


def failing(metrics, against=None):
    return [str(each) for each in conditions(metrics, PARAMS, against) if not each.holds]


def test_a_good_model_passes():
    assert failing(GOOD) == []
    assert failing(GOOD | {"expected_calibration_error": 0.1}) == []
    assert failing(GOOD, Difference(0.0, -0.02)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"image_auroc_low": 0.5},
            "fails: image_auroc_low at least 0.8: 0.500, of 0.950, short by 0.3",
        ),
        (
            {"false_positive_rate": 0.25},
            "fails: false_positive_rate at most 0.15: 0.250 [0.127, 0.412], short by 0.1",
        ),
        (
            {"expected_calibration_error": 0.3},
            "fails: expected_calibration_error at most 0.1: 0.300, short by 0.2",
        ),
        (
            {"threshold_verdict": {"verdict": "void for this source", "flags": 9, "images": 40}},
            "fails: threshold not void for this source: void for this source, 9 of 40 that count "
            "are flagged",
        ),
    ],
)
def test_what_fails_is_named_with_what_is_missing(change, said):
    assert failing(GOOD | change) == [said]


def test_without_an_interval_or_normal_images_nothing_is_taken_for_granted():
    few = {key: value for key, value in GOOD.items() if key != "image_auroc_low"}
    assert failing(few) == [
        "fails: image_auroc_low at least 0.8: too few independent test images for an interval; add "
        "some, of both labels"
    ]
    verdict = {"verdict": "cannot say", "flags": 0, "images": 0}
    none = {key: value for key, value in GOOD.items() if key != "false_positive_rate"}
    assert failing(none | {"threshold_verdict": verdict}) == [
        "fails: false_positive_rate: no normal test image to tell it"
    ]


def test_a_champion_must_not_be_missed_by_more_than_the_margin():
    assert failing(GOOD, Difference(-0.01, -0.05)) == [
        "fails: image AUROC not more than 0.02 behind the champion: -0.010, 95% sure of -0.050, "
        "short by 0.03"
    ]
    assert failing(GOOD, "it was tested on other images") == [
        "fails: image AUROC not more than 0.02 behind the champion: it was tested on other images"
    ]


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(60) < 0.4, rng.integers(0, 12, 60).astype(float)
    weights = rng.integers(0, 4, 60)
    expected = roc_auc_score(np.repeat(labels, weights), np.repeat(scores, weights))
    assert weighted_auroc(labels, scores, weights.astype(float)) == pytest.approx(expected)


def table(scores, labels, hashes=None):
    count = len(scores)
    return pd.DataFrame(
        {
            "sha256": hashes or [f"{number:064d}" for number in range(count)],
            "label": labels,
            "group": [str(number // 2) for number in range(count)],
            "image_score": scores,
        }
    )


def test_the_comparison_is_paired_in_whatever_order():
    rng = np.random.default_rng(1)
    labels = np.arange(200) % 2
    shared = rng.normal(size=200)
    old = table(labels * 2 + shared, labels)
    assert compare(old, old.sample(frac=1, random_state=0)) == Difference(0.0, 0.0)
    better = compare(table(labels * 4 + shared, labels), old)
    assert better.estimate > better.low > 0
    worse = compare(table(labels * 0.5 + shared, labels), old)
    expected = roc_auc_score(labels, labels * 0.5 + shared) - roc_auc_score(labels, old.image_score)
    assert worse.estimate == pytest.approx(expected)
    assert worse.low < worse.estimate < -0.05


def test_other_images_are_not_compared():
    old = table([0.0, 1.0, 2.0], [0, 1, 1])
    other = table([0.0, 1.0, 2.0], [0, 1, 1], hashes=["0" * 64, "a" * 64, "b" * 64])
    assert compare(other, old) == "it was tested on other images (1 of 3 are the same)"
    twice = table([0.0, 0.5, 2.0], [0, 0, 1], hashes=["0" * 64, "0" * 64, "b" * 64])
    assert compare(twice, twice) == Difference(0.0, 0.0)
    assert compare(table([1.0], [1]), table([1.0], [1])) == "its test images are all of one label"
