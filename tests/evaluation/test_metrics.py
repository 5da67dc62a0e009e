"""Metrics against hand-computed values, scikit-learn and a brute-force AUPRO."""

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from blackswan.errors import InputError
from blackswan.evaluation import metrics
from blackswan.evaluation.metrics import (
    PixelMetrics,
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
    "threshold",
}


def measure(labels, scores, threshold=0.5, groups=None, resamples=50, seed=0):
    groups = [str(i) for i in range(len(labels))] if groups is None else groups
    return image_metrics(
        np.array(labels), np.array(scores), threshold, groups, resamples=resamples, seed=seed
    )


def smooth_maps(count, size=64, seed=0):
    """Return smooth random maps whose masks hold touching, tiny and border regions, and masks."""
    rng = generator(seed, "maps")
    for place in range(count):
        mask = np.zeros((size, size), bool)
        if place % 2:
            for _ in range(rng.integers(1, 5)):
                top, left = rng.integers(0, size - 2, 2)
                high, wide = rng.integers(1, 14, 2)
                mask[top : top + high, left : left + wide] = True
        noise = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 2) * 6
        signal = cv2.GaussianBlur(mask.astype(np.float64), (0, 0), 2) * 3
        yield (noise + signal + rng.normal() * 0.2).astype(np.float32), mask


def exact_aupro(maps, masks, limit=0.3):
    """Return AUPRO by one threshold for every distinct score, region by region."""
    regions = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [np.sort(anomaly_map[labels == label]) for label in range(1, count)]
    outside = np.sort(np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)]))
    thresholds = np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]

    def share(values):  # of the values that are at or above each threshold
        return np.append(0, 1 - np.searchsorted(values, thresholds) / len(values))

    rate, overlap = share(outside), np.mean([share(region) for region in regions], axis=0)
    kept = rate <= limit
    end = np.interp(limit, rate, overlap)
    return np.trapezoid(np.append(overlap[kept], end), np.append(rate[kept], limit)) / limit


def accumulate(maps, masks, groups=None):
    pixels = PixelMetrics()
    for place, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        pixels.add(anomaly_map, mask, str(place) if groups is None else groups[place])
    return pixels


def test_image_metrics_by_hand():
    found = measure([0, 0, 0, 1, 1], [0.1, 0.4, 0.6, 0.5, 0.9], threshold=0.5)
    assert set(found) == IMAGE_KEYS
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
    found = measure(labels, scores, threshold=distinct / 2, resamples=20)
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
    assert set(found) == {key for key in IMAGE_KEYS if not key.endswith(("_low", "_high"))}
    assert found["image_auroc"] == 1.0


def test_equal_scores_are_chance():
    found = measure([0, 0, 0, 1], [0.3] * 4, groups=["a", "b", "a", "b"])
    assert found["image_auroc"] == 0.5
    assert found["image_ap"] == 0.25


def test_perfect_separation_collapses_to_exactly_one():
    found = measure([0] * 7 + [1] * 6, [*np.linspace(0, 0.3, 7), *np.linspace(0.6, 1, 6)])
    names = ["image_auroc", "image_auroc_low", "image_auroc_high", "image_ap_low", "image_f1"]
    assert [found[name] for name in names] == [1.0] * 5


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


def test_bootstrap_equals_a_plain_loop_over_redrawn_images():
    rng = generator(3, "loop")
    labels, groups = rng.integers(0, 2, 60), rng.integers(0, 12, 60)
    scores = np.round(rng.normal(size=60) + labels, 1)
    found = measure(labels, scores, groups=[f"{g:02}" for g in groups], resamples=300, seed=5)

    draw = generator(5, "bootstrap", "images").integers(12, size=(300, 12))
    areas, precisions = [], []
    for picks in draw:
        chosen = np.concatenate([np.flatnonzero(groups == group) for group in picks])
        areas.append(roc_auc_score(labels[chosen], scores[chosen]))
        precisions.append(average_precision_score(labels[chosen], scores[chosen]))
    for key, values in (("image_auroc", areas), ("image_ap", precisions)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[f"{key}_low"] == pytest.approx(low, abs=1e-12)
        assert found[f"{key}_high"] == pytest.approx(high, abs=1e-12)


def test_images_of_one_group_widen_the_interval():
    rng = generator(0, "blocks")
    labels = np.repeat(rng.permutation(np.arange(20) % 2), 10)
    scores = labels + np.repeat(rng.normal(size=20), 10) + rng.normal(size=200) * 0.1
    blocks = measure(labels, scores, groups=[str(i // 10) for i in range(200)], resamples=300)
    alone = measure(labels, scores, groups=[""] * 200, resamples=300)  # unknown: each for itself

    def width(found):
        return found["image_auroc_high"] - found["image_auroc_low"]

    assert width(blocks) > 2 * width(alone) > 0
    assert alone["image_auroc_low"] < alone["image_auroc"] < alone["image_auroc_high"]


def test_resamples_that_lose_a_class_are_drawn_again():
    # One draw in eight of these four groups would hold a single class.
    found = measure([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], resamples=500)
    assert found["image_auroc_low"] == 0.0  # the draws of 0.6 against 0.5 alone
    assert found["image_auroc_high"] == 1.0
    present = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    weights = np.concatenate(list(metrics._draws(present, 4, 500, generator(0, "x"))))
    assert weights.shape == (500, 4)
    assert (weights @ present > 0).all()
    assert set(weights.sum(axis=1)) == {4.0}


def test_same_seed_same_interval_and_batches_change_nothing(monkeypatch):
    labels, scores = np.arange(40) % 2, generator(0, "seed").normal(size=40) + np.arange(40) % 2
    first = measure(labels, scores, seed=1)
    assert measure(labels, scores, seed=1) == first
    assert measure(labels, scores, seed=2)["image_auroc_low"] != first["image_auroc_low"]
    monkeypatch.setattr(metrics, "CHUNK", 100)  # two resamples a batch
    assert measure(labels, scores, seed=1) == first


def test_no_resamples_no_interval():
    assert "image_auroc_low" not in measure([0, 0, 1, 1], [1, 2, 3, 4], resamples=0)


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


@pytest.mark.parametrize(
    "scale",
    [
        lambda x: x,
        np.exp,
        lambda x: 100 + x / 1000,  # a narrow range far from zero
        lambda x: 1 / (1 + np.exp(9 - 4 * x)),  # saturated probabilities
        lambda x: np.clip(np.round(x), -1, 1),  # hardly anything but ties
        lambda x: -1e-6 * np.exp(-x),
    ],
    ids=["raw", "exp", "offset", "sigmoid", "ties", "tiny"],
)
def test_pixel_metrics_agree_with_scikit_learn_and_brute_force(scale):
    maps, masks = zip(*smooth_maps(16), strict=True)
    maps = [scale(m.astype(np.float64)).astype(np.float32) for m in maps]
    found = accumulate(maps, masks).compute(resamples=0, seed=0)
    auroc = roc_auc_score(
        np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    )
    assert found["pixel_auroc"] == pytest.approx(auroc, abs=1e-5)
    assert found["pixel_aupro"] == pytest.approx(exact_aupro(maps, masks), abs=1e-4)


def test_aupro_by_hand():
    # Pixels that touch at a corner are one region; a small region counts as much as a large one.
    mask = np.zeros((4, 5), bool)
    mask[0, 0] = mask[1, 1] = mask[3, 4] = True
    anomaly_map = np.zeros((4, 5), np.float32)
    anomaly_map[0, 0] = anomaly_map[1, 1] = 1  # the large region is found, the small one is not
    found = accumulate([anomaly_map], [mask]).compute(resamples=10, seed=0)
    # The overlap is 1/2 at rate 0, then rises along one tie to (1, 1): at rate 0.3 it is 0.65.
    assert found == {
        "pixel_auroc": pytest.approx(2 / 3 + 1 / 6),
        "pixel_aupro": pytest.approx((0.5 + 0.65) / 2),
    }


def test_equal_maps_are_chance_and_zero_has_no_sign():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    signed = np.where(mask, np.float32(0.0), np.float32(-0.0))
    found = accumulate([signed, signed], [mask, mask]).compute(resamples=20, seed=0)
    assert found["pixel_auroc"] == found["pixel_auroc_low"] == found["pixel_auroc_high"] == 0.5
    assert found["pixel_aupro"] == pytest.approx(0.15)  # the diagonal up to 0.3


def test_perfect_maps():
    _, masks = zip(*smooth_maps(6), strict=True)
    found = accumulate([m.astype(np.float32) for m in masks], masks).compute(resamples=20, seed=0)
    assert len(found) == 6
    assert list(found.values()) == pytest.approx([1.0] * 6, abs=1e-12)


def test_pixel_metrics_are_absent_without_masks():
    pixels = PixelMetrics()
    assert pixels.compute(resamples=10, seed=0) == {}
    pixels.add(np.ones((4, 4), np.float32), np.zeros((4, 4), bool), "a")
    assert pixels.compute(resamples=10, seed=0) == {}
    assert len(pixels.pro_points()) == 0


def test_pixel_bootstrap_equals_a_plain_loop_over_redrawn_groups():
    maps, masks = zip(*smooth_maps(12), strict=True)
    groups = [f"{i // 2}" for i in range(12)]
    found = accumulate(maps, masks, groups).compute(resamples=40, seed=5)
    draw = generator(5, "bootstrap", "pixels").integers(6, size=(40, 6))
    areas, overlaps = [], []
    for picks in draw:
        chosen = [i for pick in picks for i in (2 * pick, 2 * pick + 1)]
        labels, scores = (np.concatenate([a[i].ravel() for i in chosen]) for a in (masks, maps))
        areas.append(roc_auc_score(labels, scores))
        overlaps.append(exact_aupro([maps[i] for i in chosen], [masks[i] for i in chosen]))
    for key, values in (("pixel_auroc", areas), ("pixel_aupro", overlaps)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[f"{key}_low"] == pytest.approx(low, abs=1e-3)
        assert found[f"{key}_high"] == pytest.approx(high, abs=1e-3)


def test_coarse_counts_do_not_move_the_pixel_interval_off_its_value():
    maps, masks = zip(*[list(smooth_maps(2))[1]] * 3, strict=True)  # every resample is the same
    found = accumulate(maps, masks).compute(resamples=20, seed=0)
    for key in ("pixel_auroc", "pixel_aupro"):
        assert 0.5 < found[key] < 0.99
        assert found[f"{key}_low"] == pytest.approx(found[key], abs=1e-12)
        assert found[f"{key}_high"] == pytest.approx(found[key], abs=1e-12)


def test_order_of_images_changes_pixel_metrics_by_less_than_the_resolution():
    maps, masks = zip(*smooth_maps(8), strict=True)
    forth = accumulate(maps, masks).compute(resamples=20, seed=0)
    back = accumulate(maps[::-1], masks[::-1], [str(7 - i) for i in range(8)])
    for key, value in back.compute(resamples=20, seed=0).items():
        assert value == pytest.approx(forth[key], abs=1e-3)


def test_memory_depends_on_groups_not_on_images():
    maps, masks = zip(*smooth_maps(4), strict=True)
    pixels = accumulate(maps, masks, ["a", "b", "a", "b"])
    held = sum(part.nbytes for group in pixels._groups.values() for part in group)
    for _ in range(5):
        for anomaly_map, mask in zip(maps, masks, strict=True):
            pixels.add(anomaly_map, mask, "a")
    assert len(pixels._groups) == 2
    assert sum(part.nbytes for group in pixels._groups.values() for part in group) <= 1.5 * held
    assert pixels._counts.nbytes == 3 * 2**20 * 8


def test_maps_that_are_not_finite_or_do_not_fit_their_mask():
    pixels = PixelMetrics()
    mask = np.zeros((3, 3), bool)
    with pytest.raises(InputError, match="anomaly map of image 0: 1 of 9 scores are not finite"):
        pixels.add(np.array([[0, 1, 2], [3, np.nan, 5], [6, 7, 8]], np.float32), mask, "a")
    with pytest.raises(InputError, match=r"mask of image 0 is \(3, 3\)"):
        pixels.add(np.zeros((4, 4), np.float32), mask, "a")
    assert pixels.compute(resamples=1, seed=0) == {}  # nothing was counted


def test_pro_points_integrate_to_aupro_and_name_their_thresholds():
    maps, masks = zip(*smooth_maps(10), strict=True)
    pixels = accumulate(maps, masks)
    curve = pixels.pro_points()
    assert 150 < len(curve) <= 200
    assert curve["false_positive_rate"].iloc[[0, -1]].tolist() == [0, 0.3]
    area = np.trapezoid(curve["per_region_overlap"], curve["false_positive_rate"]) / 0.3
    assert area == pytest.approx(pixels.compute(resamples=0, seed=0)["pixel_aupro"], abs=2e-3)
    outside = np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)])
    for row in curve.iloc[1:-1].itertuples():
        assert (outside >= row.threshold).mean() == pytest.approx(row.false_positive_rate, abs=1e-3)


def test_codes_grow_with_the_float_and_edges_invert_them():
    values = np.array([-3e38, -2.0, -1.0, -1e-30, -0.0, 0.0, 1e-45, 1e-30, 1.0, 1.001, 3e38])
    codes = metrics._codes(values)
    assert (np.diff(codes) >= 0).all()
    assert codes[4] == codes[5]
    assert codes.max() < metrics.CODES
    edges = metrics._edges(codes)
    assert (edges <= values).all()
    assert (values - edges <= np.abs(values) * 2.0**-11 + 1e-38).all()
