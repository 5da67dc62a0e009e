"""Metrics against hand-computed values, scikit-learn and a brute-force AUPRO."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from blackswan.errors import InputError
from blackswan.evaluation import metrics
from blackswan.evaluation.metrics import (
    defect_table,
    expected_calibration_error,
    image_metrics,
    precision_recall_points,
    reliability_curve,
    roc_points,
)
from blackswan.seeds import generator

IMAGE_KEYS = {
    "image_auroc",
    "image_auroc_low",
    "image_auroc_high",
    "image_ap",
    "image_ap_low",
    "image_ap_high",
    "image_f1",
    "false_positive_rate",
    "recall",
    "normal_score_mean",
    "normal_score_max",
    "anomalous_score_min",
    "n_normal",
    "n_anomalous",
    "n_groups",
    "threshold",
}
BOUNDS = {key for key in IMAGE_KEYS if key.endswith(("_low", "_high"))}


def measure(labels, scores, threshold=0.5, groups=None):
    groups = [str(i) for i in range(len(labels))] if groups is None else groups
    return image_metrics(np.array(labels), np.array(scores), threshold, groups)


def test_image_metrics_by_hand():
    found = measure([0, 0, 0, 1, 1], [0.1, 0.4, 0.6, 0.5, 0.9], threshold=0.5)
    assert set(found) == IMAGE_KEYS - BOUNDS  # two anomalous images
    assert found["image_auroc"] == pytest.approx(5 / 6)  # 0.5 loses one of its three pairs
    assert found["image_ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["recall"] == 0.5  # a score equal to the threshold is not flagged
    assert found["false_positive_rate"] == pytest.approx(1 / 3)
    assert found["image_f1"] == pytest.approx(0.5)  # one hit, one miss, one false alarm
    assert found["normal_score_mean"] == pytest.approx(1.1 / 3)
    assert found["normal_score_max"] == 0.6
    assert found["anomalous_score_min"] == 0.5
    assert (found["n_normal"], found["n_anomalous"], found["threshold"]) == (3, 2, 0.5)


@pytest.mark.parametrize("distinct", [3, 10, 100_000])
def test_image_metrics_agree_with_scikit_learn_under_ties(distinct):
    rng = generator(distinct, "ties")
    labels = rng.integers(0, 2, 300)
    scores = (rng.integers(distinct, size=300) + labels * distinct // 4).astype(np.float32)
    found = measure(labels, scores, threshold=distinct / 2)
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert found["image_f1"] == pytest.approx(f1_score(labels, scores > distinct / 2), abs=1e-12)


def test_normal_images_alone_leave_undefined_metrics_out():
    found = measure([0, 0], [0.2, 0.8])
    assert found == {
        "n_normal": 2,
        "n_anomalous": 0,
        "threshold": 0.5,
        "false_positive_rate": 0.5,
        "normal_score_mean": 0.5,
        "normal_score_max": 0.8,
    }


def test_one_anomalous_image_alone():
    assert measure([1], [0.7]) == {
        "n_normal": 0,
        "n_anomalous": 1,
        "threshold": 0.5,
        "recall": 1.0,
        "anomalous_score_min": 0.7,
    }


def test_one_image_of_each_class_has_no_interval():
    found = measure([0, 1], [0.1, 0.9])
    assert set(found) == IMAGE_KEYS - BOUNDS
    assert (found["image_auroc"], found["n_groups"]) == (1.0, 1)


def test_equal_scores_are_chance():
    found = measure([0, 0, 0, 1], [0.3] * 4, groups=["a", "b", "a", "b"])
    assert found["image_auroc"] == 0.5
    assert found["image_ap"] == 0.25


def test_perfect_separation_has_the_exact_bound_of_its_groups():
    found = measure([0] * 7 + [1] * 6, [*np.linspace(0, 0.3, 7), *np.linspace(0.6, 1, 6)])
    assert set(found) == IMAGE_KEYS - {"image_ap_low", "image_ap_high"}
    assert [found[name] for name in ("image_auroc", "image_ap", "image_f1")] == [1.0] * 3
    assert found["n_groups"] == 6
    assert found["image_auroc_low"] == pytest.approx(0.025 ** (1 / 6))  # all of 6 pairs
    assert found["image_auroc_high"] == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_not_finite_never_ranks(bad):
    labels, scores = np.array([0, 1, 1]), np.array([0.1, bad, 0.5])
    calls = [
        lambda: measure(labels, scores),
        lambda: roc_points(labels, scores),
        lambda: precision_recall_points(labels, scores),
        lambda: defect_table(["", "a", "a"], labels, scores, 0.5),
        lambda: expected_calibration_error(labels, scores),
    ]
    for call in calls:
        with pytest.raises(InputError, match="test images: 1 of 3 scores are not finite"):
            call()


def test_no_images():
    with pytest.raises(InputError, match="no images"):
        measure([], [])


def test_labels_and_scores_of_different_length():
    with pytest.raises(InputError, match="2 labels, 1 scores"):
        measure([0, 1], [0.5])


def test_images_of_one_group_widen_the_interval():
    rng = generator(0, "blocks")
    labels = np.repeat(rng.permutation(np.arange(20) % 2), 10)
    scores = labels + np.repeat(rng.normal(size=20), 10) + rng.normal(size=200) * 0.1
    blocks = measure(labels, scores, groups=[str(i // 10) for i in range(200)])
    alone = measure(labels, scores, groups=[""] * 200)  # unknown: each for itself

    def width(found):
        return found["image_auroc_high"] - found["image_auroc_low"]

    assert width(blocks) > 2 * width(alone) > 0
    assert (blocks["n_groups"], alone["n_groups"]) == (10, 100)
    assert alone["image_auroc_low"] < alone["image_auroc"] < alone["image_auroc_high"]


def test_groups_are_those_of_the_class_that_has_fewer():
    labels, groups = [0, 0, 0, 0, 1, 1, 1], ["a", "a", "b", "c", "a", "d", ""]
    assert measure(labels, [0, 1, 2, 3, 2, 3, 4], groups=groups)["n_groups"] == 3
    assert measure(labels, [0, 1, 2, 3, 2, 3, 4], groups=["a"] * 7)["n_groups"] == 1


def test_ap_without_a_group_keeps_the_share_of_anomalous_images():
    labels, scores = np.array([0, 0, 1, 0, 1, 1]), np.array([1.0, 2, 3, 4, 5, 6])
    groups = np.array([0, 1, 2, 2, 3, 4])
    found = metrics._precision_left_out(labels.astype(bool), scores, groups)
    # Without both images of group 2 no error is left; without image 0 the false alarm weighs 3/2.
    assert found[2] == 1
    assert found[0] == pytest.approx((1 + 1 + 3 / (3 + 1.5)) / 3)
    # Without the best one the others weigh 3/2: precision 1, and 3 of 3 + 1.
    assert found[4] == pytest.approx((1 + 3 / 4) / 2)


def test_groups_left_out_together_change_the_interval_little(monkeypatch):
    rng = generator(0, "many")
    labels = np.repeat([0, 1], [550, 50])
    scores = rng.normal(size=600) + 1.5 * labels
    alone = measure(labels, scores)
    monkeypatch.setattr(metrics, "LEFT_OUT", 1000)
    monkeypatch.setattr(metrics, "CHUNK", 1000)  # one ranking a batch
    exact = measure(labels, scores)
    assert exact != alone
    for key, value in exact.items():
        assert alone[key] == pytest.approx(value, abs=0.01)


def test_defect_table_by_hand():
    table = defect_table(
        ["", "scratch", "dent", "", "scratch", ""],
        np.array([0, 1, 1, 0, 1, 1]),
        np.array([0.1, 0.9, 0.2, 0.3, 0.2, 0.8]),
        threshold=0.5,
    )
    assert table == [
        {"defect": "dent", "n": 1, "recall": 0.0, "image_auroc": 0.5},
        {"defect": "scratch", "n": 2, "recall": 0.5, "image_auroc": 0.75},
        {"defect": "unknown", "n": 1, "recall": 1.0, "image_auroc": 1.0},
    ]


def test_defect_table_without_normal_images_has_no_auroc():
    assert defect_table(["a"], np.array([1]), np.array([0.9]), 0.5) == [
        {"defect": "a", "n": 1, "recall": 1.0}
    ]
    assert defect_table([""], np.array([0]), np.array([0.9]), 0.5) == []


def test_calibration_by_hand():
    labels, probabilities = np.array([0, 1, 0, 1, 1]), np.array([0.0, 0.05, 0.1, 0.95, 1.0])
    curve = reliability_curve(labels, probabilities)
    assert curve["n"].tolist() == [2, 1, 2]  # 0.1 opens the second bin, 1.0 closes the last
    assert curve["low"].tolist() == pytest.approx([0.0, 0.1, 0.9])
    assert curve["high"].tolist() == pytest.approx([0.1, 0.2, 1.0])
    assert curve["probability"].tolist() == pytest.approx([0.025, 0.1, 0.975])
    assert curve["frequency"].tolist() == [0.5, 0.0, 1.0]
    expected = (2 * 0.475 + 1 * 0.1 + 2 * 0.025) / 5
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected)


def test_calibration_refuses_scores_that_are_no_probabilities():
    with pytest.raises(InputError, match="run from 0.5 to 7"):
        expected_calibration_error(np.array([0, 1]), np.array([0.5, 7.0]))


def test_roc_points_are_true_of_score_above_threshold():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.6, 0.9])
    curve = roc_points(labels, scores)
    assert curve["recall"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert curve["false_positive_rate"].tolist() == [0, 0, 0, 0.5, 1]
    for row in curve.itertuples():
        flagged = scores > row.threshold
        assert row.recall == pytest.approx(flagged[labels == 1].mean())
        assert row.false_positive_rate == pytest.approx(flagged[labels == 0].mean())


def test_precision_recall_points_are_true_of_score_above_threshold():
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.6, 0.9])
    curve = precision_recall_points(labels, scores)
    assert curve["precision"].tolist() == pytest.approx([1, 1, 3 / 4, 3 / 5])
    for row in curve.itertuples():
        flagged = scores > row.threshold
        assert row.recall == pytest.approx(flagged[labels == 1].mean())
        assert row.precision == pytest.approx(labels[flagged].mean())


def test_curves_are_thinned_and_keep_their_area():
    rng = generator(0, "thin")
    labels = rng.integers(0, 2, 5000)
    scores = rng.normal(size=5000) + labels
    roc, precision_recall = roc_points(labels, scores), precision_recall_points(labels, scores)
    assert 150 < len(roc) <= 200
    assert 150 < len(precision_recall) <= 200
    area = np.trapezoid(roc["recall"], roc["false_positive_rate"])
    assert area == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)
    assert roc.iloc[[0, -1]]["recall"].tolist() == [0, 1]
    assert precision_recall["recall"].iloc[-1] == 1


def test_thinning_keeps_the_corner_of_a_perfect_curve():
    curve = roc_points(np.arange(2000) >= 777, np.arange(2000.0))
    area = np.trapezoid(curve["recall"], curve["false_positive_rate"])
    assert area == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("curve", [roc_points, precision_recall_points])
def test_one_class_has_no_curve(curve):
    assert len(curve(np.array([0, 0]), np.array([0.1, 0.2]))) == 0
    assert len(curve(np.array([1]), np.array([0.1]))) == 0
