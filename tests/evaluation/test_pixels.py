"""Pixel metrics against scikit-learn and a brute-force AUPRO, on maps of any range."""

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from blackswan.errors import InputError
from blackswan.evaluation import pixels as module
from blackswan.evaluation.intervals import jackknife_bounds
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.seeds import generator


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


def test_pixels_that_do_not_count_change_nothing():
    maps, masks = zip(*smooth_maps(4), strict=True)
    counts = np.ones((64, 64), bool)
    counts[:, :20] = False
    found, expected = PixelMetrics(), PixelMetrics()
    for number, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        found.add(anomaly_map, mask, str(number), counts)
        expected.add(anomaly_map[:, 20:], mask[:, 20:], str(number))
    assert found.compute() == expected.compute()


def accumulate(maps, masks, groups=None):
    pixels = PixelMetrics()
    for place, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        pixels.add(anomaly_map, mask, str(place) if groups is None else groups[place])
    return pixels


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
    found = accumulate(maps, masks).compute()
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
    found = accumulate([anomaly_map], [mask]).compute()
    # The overlap is 1/2 at rate 0, then rises along one tie to (1, 1): at rate 0.3 it is 0.65.
    assert found == {
        "n_pixel_groups": 1,
        "pixel_auroc": pytest.approx(2 / 3 + 1 / 6),
        "pixel_aupro": pytest.approx((0.5 + 0.65) / 2),
    }


def test_equal_maps_are_chance_and_zero_has_no_sign():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    signed = np.where(mask, np.float32(0.0), np.float32(-0.0))
    found = accumulate([signed, signed], [mask, mask]).compute()
    assert found == {
        "n_pixel_groups": 2,
        "pixel_auroc": 0.5,
        "pixel_aupro": pytest.approx(0.15),  # the diagonal up to 0.3
    }


def test_perfect_maps():
    _, masks = zip(*smooth_maps(6), strict=True)
    found = accumulate([m.astype(np.float32) for m in masks], masks).compute()
    assert found == {"n_pixel_groups": 3, "pixel_auroc": 1.0, "pixel_aupro": 1.0}


def test_pixel_metrics_are_absent_without_masks():
    pixels = PixelMetrics()
    assert pixels.compute() == {}
    pixels.add(np.ones((4, 4), np.float32), np.zeros((4, 4), bool), "a")
    assert pixels.compute() == {}
    assert len(pixels.pro_points()) == 0


def test_pixel_bounds_are_those_of_a_plain_loop_that_leaves_groups_out():
    maps, masks = zip(*smooth_maps(12), strict=True)
    groups = [f"{place // 2}" for place in range(12)]
    found = accumulate(maps, masks, groups).compute()
    areas, overlaps = [], []
    for left in range(0, 12, 2):
        kept = [place for place in range(12) if place // 2 != left // 2]
        labels, scores = (np.concatenate([a[i].ravel() for i in kept]) for a in (masks, maps))
        areas.append(roc_auc_score(labels, scores))
        overlaps.append(exact_aupro([maps[i] for i in kept], [masks[i] for i in kept]))
    assert found["n_pixel_groups"] == 6
    for key, values in (("pixel_auroc", areas), ("pixel_aupro", overlaps)):
        bounds = jackknife_bounds(found[key], np.array(values), 6, module.SHARE)
        assert [found[f"{key}_low"], found[f"{key}_high"]] == pytest.approx(bounds, abs=2e-3)


def test_a_normal_group_is_no_group_of_anomalous_pixels():
    maps, masks = zip(*smooth_maps(8), strict=True)  # every other one has no mask
    found = accumulate(maps, masks).compute()
    assert found["n_pixel_groups"] == 4
    assert found["pixel_auroc_low"] < found["pixel_auroc"] < found["pixel_auroc_high"]
    fewer = accumulate(maps[:5], masks[:5]).compute()
    assert fewer.keys() == {"n_pixel_groups", "pixel_auroc", "pixel_aupro"}
    assert fewer["n_pixel_groups"] == 2


def streams():
    """Yield name and maps that a histogram of fixed bins misjudges, each with the same masks."""
    maps, masks = zip(*smooth_maps(12), strict=True)
    spread = [m.astype(np.float64) for m in maps]
    flat = np.zeros_like(spread[0])
    saturated = [1 / (1 + np.exp(-3 * m - 12)) for m in spread]
    yield "zeros first, then a narrow range", [flat, *(1e3 + m for m in spread[1:])], masks
    yield "negative", [flat + 1, *(-1e4 + m for m in spread[1:])], masks
    yield "huge first", [1e30 * spread[0], *spread[1:]], masks
    yield "tiny first", [1e-30 * spread[0], *spread[1:]], masks
    yield "a narrow range far off", [5e4 + m / 10 for m in spread], masks
    yield "logarithms", [np.log(1e-12 + np.exp(9 * m)) for m in spread], masks
    yield "exponentials", [np.exp(12 * m) for m in spread], masks
    yield "saturated", saturated, masks
    yield "a constant between", [*spread[:5], flat + 0.5, *spread[6:]], masks
    yield "two ranges", [m if i % 3 else 100 + m / 1e3 for i, m in enumerate(spread)], masks


@pytest.mark.parametrize("kept", [1 << 19, 6000], ids=["all values kept", "merged"])
@pytest.mark.parametrize(
    ("maps", "masks"), [s[1:] for s in streams()], ids=[s[0] for s in streams()]
)
def test_whatever_map_comes_first(maps, masks, kept, monkeypatch):
    monkeypatch.setattr(module, "DISTINCT", kept)
    monkeypatch.setattr(module, "WAITING", kept)
    monkeypatch.setattr(module, "STEPS", kept // 4)
    maps = [m.astype(np.float32) for m in maps]
    labels, scores = (np.concatenate([a.ravel() for a in each]) for each in (masks, maps))
    auroc, aupro = roc_auc_score(labels, scores), exact_aupro(maps, masks)
    orders = [range(12), range(11, -1, -1), generator(0, "order").permutation(12)]
    for order in orders:
        pixels = accumulate([maps[i] for i in order], [masks[i] for i in order])
        found = pixels.compute()
        assert found["pixel_auroc"] == pytest.approx(auroc, abs=5e-4)  # so orders differ by < .001
        assert found["pixel_aupro"] == pytest.approx(aupro, abs=5e-4)
        assert len(pixels._total.values) <= max(kept, 3 * (kept // 4 + 1))


def test_the_order_of_images_moves_the_interval_by_less_than_a_thousandth():
    maps, masks = zip(*smooth_maps(8), strict=True)
    forth = accumulate(maps, masks).compute()
    back = accumulate(maps[::-1], masks[::-1], [str(7 - i) for i in range(8)])
    for key, value in back.compute().items():
        assert value == pytest.approx(forth[key], abs=1e-3)


def test_memory_depends_on_groups_not_on_images(monkeypatch):
    monkeypatch.setattr(module, "DISTINCT", 1 << 14)
    monkeypatch.setattr(module, "WAITING", 1 << 14)
    monkeypatch.setattr(module, "STEPS", 1 << 12)
    pixels = PixelMetrics()
    for seed in range(10):
        maps, masks = zip(*smooth_maps(4, seed=seed), strict=True)
        for place in range(4):
            pixels.add(maps[place], masks[place], "ab"[place % 2])
    pixels.compute()
    assert len(pixels._groups) == 2
    assert len(pixels._total.values) <= 3 * ((1 << 12) + 1)  # of 160,000
    assert max(sum(part.nbytes for part in each) for each in pixels._groups.values()) < 30_000


def test_maps_that_are_not_finite_or_do_not_fit_their_mask():
    pixels = PixelMetrics()
    mask = np.zeros((3, 3), bool)
    with pytest.raises(InputError, match="anomaly map of image 0: 1 of 9 scores are not finite"):
        pixels.add(np.array([[0, 1, 2], [3, np.nan, 5], [6, 7, 8]], np.float32), mask, "a")
    with pytest.raises(InputError, match=r"mask of image 0 is \(3, 3\)"):
        pixels.add(np.zeros((4, 4), np.float32), mask, "a")
    assert pixels.compute() == {}  # nothing was counted


def test_pro_points_integrate_to_aupro_and_name_their_thresholds():
    maps, masks = zip(*smooth_maps(10), strict=True)
    pixels = accumulate(maps, masks)
    curve = pixels.pro_points()
    assert 150 < len(curve) <= 200
    assert curve["false_positive_rate"].iloc[[0, -1]].tolist() == [0, 0.3]
    area = np.trapezoid(curve["per_region_overlap"], curve["false_positive_rate"]) / 0.3
    assert area == pytest.approx(pixels.compute()["pixel_aupro"], abs=2e-3)
    outside = np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)])
    for row in curve.iloc[1:-1].itertuples():
        assert (outside >= row.threshold).mean() == pytest.approx(row.false_positive_rate, abs=1e-3)
