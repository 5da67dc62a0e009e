"""Bounds by hand, and that they cover in simulation."""

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import roc_auc_score

from blackswan.evaluation.intervals import (
    SHARE,
    auroc_bounds,
    entries,
    exact_bounds,
    jackknife_bounds,
)
from blackswan.evaluation.metrics import image_metrics
from blackswan.seeds import generator


def test_jackknife_by_hand():
    left_out = np.array([0.7, 0.8, 0.85, 0.85])
    spread = np.sqrt(3 / 4 * ((left_out - 0.8) ** 2).sum()) / (0.8 * 0.2)
    odds, reach = np.log(0.8 / 0.2), t.ppf(0.975, 2) * spread  # of three groups
    exact = exact_bounds(0.8, 3)[0]
    low = (1 - SHARE) * (odds - reach) + SHARE * np.log(exact / (1 - exact))
    low = min(low, odds - reach)
    expected = [1 / (1 + np.exp(-low)), 1 / (1 + np.exp(-odds - reach))]
    assert jackknife_bounds(0.8, left_out, 3) == pytest.approx(expected)
    mirrored = jackknife_bounds(0.2, 1 - left_out, 3)
    assert mirrored == pytest.approx([1 - expected[1], 1 - expected[0]])


def test_the_exact_bound_widens_and_never_narrows():
    left_out = 0.9 + np.array([-0.01, 0.0, 0.01, 0.0, 0.0])
    plain, moved = (jackknife_bounds(0.9, left_out, 5, share) for share in (0.0, 0.5))
    assert moved[0] < plain[0] - 0.1
    assert moved[1] == plain[1]
    wide = np.array([0.1, 0.5, 0.9, 0.99, 0.9])
    assert jackknife_bounds(0.9, wide, 5, 0.5) == jackknife_bounds(0.9, wide, 5, 0.0)


@pytest.mark.parametrize(
    ("estimate", "left_out", "groups"),
    [(0.8, [0.7, 0.9], 2), (0.5, [0.5] * 5, 5), (1.0, [1.0] * 5, 5), (0.0, [0.0] * 5, 5)],
)
def test_too_few_groups_or_nothing_that_varies_have_no_bounds(estimate, left_out, groups):
    assert jackknife_bounds(estimate, np.array(left_out), groups) is None


def test_exact_bounds_are_those_of_clopper_and_pearson():
    assert exact_bounds(1.0, 5) == (pytest.approx(0.025**0.2), 1.0)
    assert exact_bounds(0.0, 5) == (0.0, pytest.approx(1 - 0.025**0.2))
    assert exact_bounds(0.8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)  # of tables


def test_auroc_is_estimated_from_pairs_of_different_groups():
    rng = generator(0, "pairs")
    labels, group = rng.integers(0, 2, 60).astype(bool), rng.integers(0, 6, 60)
    scores = np.round(rng.normal(size=60) + labels, 1)  # with ties

    def across(kept):
        wins = pairs = 0
        for normal in np.flatnonzero(kept & ~labels):
            others = kept & labels & (group != group[normal])
            wins += (scores[others] > scores[normal]).sum()
            wins += (scores[others] == scores[normal]).sum() / 2
            pairs += others.sum()
        return wins / pairs

    left_out = np.array([across(group != left) for left in range(6)])
    expected = jackknife_bounds(across(group >= 0), left_out, 6)
    assert auroc_bounds(labels, scores, group) == pytest.approx(expected)
    alone = auroc_bounds(labels, scores, np.arange(60))
    left_out = np.array(
        [roc_auc_score(np.delete(labels, i), np.delete(scores, i)) for i in range(60)]
    )
    value = roc_auc_score(labels, scores)
    fewer = min(labels.sum(), 60 - labels.sum())
    assert alone == pytest.approx(jackknife_bounds(value, left_out, int(fewer)))


def test_a_perfect_order_and_a_perfectly_wrong_one():
    labels, group = np.repeat([False, True], 10), np.tile(np.arange(10) // 2, 2)
    scores = labels + np.tile(np.linspace(0, 0.5, 10), 2)
    assert auroc_bounds(labels, scores, group) == exact_bounds(1.0, 5)
    assert auroc_bounds(labels, -scores, group) == exact_bounds(0.0, 5)
    assert auroc_bounds(labels, scores, group // 2) == exact_bounds(1.0, 3)
    assert auroc_bounds(labels, scores, group // 4) is None
    within = scores - (labels & (group == 0)) * 10  # its own pairs alone do not decide
    assert auroc_bounds(labels, within, group)[1] < 1


def test_the_value_lies_within():
    assert entries("a", 0.9, None) == {"a": 0.9}
    assert entries("a", 0.9, (0.2, 0.8)) == {"a": 0.9, "a_low": 0.2, "a_high": 0.9}
    assert entries("a", 0.1, (0.2, 0.8)) == {"a": 0.1, "a_low": 0.1, "a_high": 0.8}


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "unpaired"])
@pytest.mark.parametrize("groups", [5, 10])
def test_intervals_cover(paired, groups):
    auroc, images, rng = 0.9, 6, generator(0, "cover")
    labels = np.repeat([0, 1], groups * images)
    blocks = np.repeat(np.arange(groups), images)
    names = [f"{i}" for i in np.concatenate([blocks, blocks if paired else blocks + groups])]
    covered = 0
    for _ in range(200):
        effects = rng.normal(size=2 * groups)
        shared = np.concatenate([effects[blocks], effects[blocks if paired else blocks + groups]])
        own = rng.normal(size=len(labels))
        scores = (shared + own) / np.sqrt(2) + labels * np.sqrt(2) * norm.ppf(auroc)
        found = image_metrics(labels, scores, 0.0, names)
        covered += found["image_auroc_low"] <= auroc <= found["image_auroc_high"]
    assert covered >= 0.93 * 200
