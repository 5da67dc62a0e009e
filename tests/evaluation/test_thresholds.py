"""Thresholds and p-values against hand-computed values, ties and repeated draws."""

import re

import numpy as np
import pytest
from scipy.special import expit, logit

from blackswan.errors import InputError
from blackswan.evaluation.thresholds import (
    conformal_threshold,
    largest_p_values,
    largest_threshold,
    p_values,
    threshold_between,
)
from blackswan.seeds import generator


def test_threshold_by_hand():
    scores = np.array([5.0, 1.0, 3.0, 2.0, 4.0, 9.0, 7.0, 8.0, 6.0])  # n = 9
    assert conformal_threshold(scores, 0.1) == 9.0  # ceil(10 * 0.9) = 9th smallest
    assert conformal_threshold(scores, 0.15) == 9.0  # ceil(8.5) = 9th
    assert conformal_threshold(scores, 0.2) == 8.0
    assert conformal_threshold(scores, 0.9) == 1.0


@pytest.mark.parametrize(
    ("count", "alpha", "rank"),
    [
        (9, 0.3, 7),
        (9, 0.7, 3),
        (19, 0.05, 19),
        (19, 0.15, 17),
        (99, 0.01, 99),
        (99, 0.29, 71),
        (99, 0.57, 43),
        (999, 0.001, 999),
        (2, 1 / 3, 2),
        (6, 3 / 7, 4),
    ],
)
def test_rank_is_free_of_float_error(count, alpha, rank):
    assert conformal_threshold(np.arange(1.0, count + 1), alpha) == rank


@pytest.mark.parametrize("count", [1, 2, 6, 18, 19, 48, 97])
def test_unsupported_alpha_names_the_smallest_possible_one_and_that_one_works(count):
    scores = np.arange(count, dtype=np.float32)
    with pytest.raises(InputError, match=rf"alpha = 0\.005 .* {count} held-out") as caught:
        conformal_threshold(scores, 0.005)
    smallest = float(re.search(r"smallest is ([0-9.e-]+)\)", str(caught.value)).group(1))
    assert 1 / (count + 1) <= smallest < 1 / (count + 1) + 1e-6
    assert conformal_threshold(scores, smallest) == count - 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_alpha_out_of_range(alpha):
    with pytest.raises(InputError, match=r"evaluate\.alpha"):
        conformal_threshold(np.arange(50.0), alpha)


def test_no_normal_scores():
    with pytest.raises(InputError, match=r"evaluate\.alpha .* needs held-out normal images"):
        conformal_threshold(np.array([]), 0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(bad):
    scores = np.array([1.0, bad, 2.0])
    with pytest.raises(InputError, match="not finite, the first at position 1"):
        conformal_threshold(scores, 0.5)
    with pytest.raises(InputError, match="not finite"):
        p_values(scores, np.array([1.0]))
    with pytest.raises(InputError, match="not finite"):
        p_values(np.array([1.0]), scores)


def test_p_values_by_hand():
    normals = np.array([3.0, 1.0, 2.0, 2.0])
    found = p_values(np.array([0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]), normals)
    assert found.tolist() == [1.0, 1.0, 0.8, 0.8, 0.4, 0.4, 0.2]


def test_all_equal_scores_raise_no_alarm():
    normals = np.full(19, 0.5)
    assert conformal_threshold(normals, 0.05) == 0.5
    assert p_values(np.array([0.5]), normals)[0] == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_above_the_threshold_exactly_where_p_is_at_most_alpha(dtype):
    rng = generator(0, "equivalence")
    for count in (1, 2, 3, 7, 19, 20, 99, 149):
        for values in (4, 10_000):  # many ties, few ties
            normals = (rng.integers(values, size=count) / 7).astype(dtype)
            scores = np.append((rng.integers(values + 1, size=200) / 7).astype(dtype), normals)
            alphas = [0.01, 0.05, 0.1, 0.2, 0.3, 0.7, *(np.arange(1, count + 1) / (count + 1))]
            for alpha in alphas:
                if alpha >= 1 / (count + 1):
                    flagged = scores > conformal_threshold(normals, alpha)
                    assert np.array_equal(flagged, p_values(scores, normals) <= alpha)


@pytest.mark.parametrize(("count", "alpha"), [(39, 0.05), (57, 0.1), (25, 0.2)])
def test_false_alarms_stay_at_or_below_alpha_over_200_draws(count, alpha):
    rng = generator(0, "draws", str(count))
    rates = []
    for _ in range(200):
        scores = rng.gamma(2.0, size=count + 500).astype(np.float32)
        threshold = conformal_threshold(scores[:count], alpha)
        rates.append((scores[count:] > threshold).mean())
    error = np.std(rates, ddof=1) / np.sqrt(len(rates))
    assert np.mean(rates) <= alpha + 2.5 * error
    attainable = np.floor(alpha * (count + 1)) / (count + 1)  # the exact rate without ties
    assert abs(np.mean(rates) - attainable) <= 3 * error


def test_the_larger_of_two_thresholds_and_its_p_values_agree():
    rng = generator(0, "two sets")
    for _ in range(50):
        sets = [rng.integers(30, size=40) / 7, rng.integers(40, size=25) / 7]
        scores = rng.integers(45, size=300) / 7
        for alpha in (0.05, 0.1, 0.2, 3 / 41):
            threshold = largest_threshold(sets, alpha)
            assert threshold == max(conformal_threshold(part, alpha) for part in sets)
            found = largest_p_values(scores, sets, alpha)
            assert np.array_equal(scores > threshold, found <= alpha)


def test_of_a_second_set_that_is_too_small_for_alpha_the_largest_score_counts():
    sets = [np.arange(39.0), np.array([36.5, 50.0])]
    assert conformal_threshold(sets[0], 0.05) == 37.0
    assert largest_threshold(sets, 0.05) == 50.0
    assert largest_threshold([sets[0], np.array([3.0])], 0.05) == 37.0
    # Above 50 the first set alone has a say; at and below it both do, and 1 / 3 is no alarm.
    found = largest_p_values(np.array([60.0, 50.0, 38.5, 36.5]), sets, 0.05)
    assert found.tolist() == [1 / 40, 2 / 3, 2 / 3, 1.0]
    with pytest.raises(InputError, match="too small for 2 held-out"):
        largest_threshold(sets[::-1], 0.05)


def test_a_smaller_alpha_never_lowers_the_threshold_and_p_values_follow_it():
    rng = generator(0, "short sets")
    for _ in range(30):
        sets = [rng.integers(30, size=60) / 7, rng.integers(34, size=12) / 7]
        scores = rng.integers(40, size=300) / 7
        alphas = np.sort([0.02, 0.05, 1 / 13, 0.08, 0.1, 0.2, 0.5])
        found = [largest_threshold(sets, alpha) for alpha in alphas]
        assert found == sorted(found, reverse=True)
        for alpha, threshold in zip(alphas, found, strict=True):
            p = largest_p_values(scores, sets, alpha)
            assert np.array_equal(scores > threshold, p <= alpha)


def test_between_normal_and_anomalous_on_the_logit_scale():
    anomalous = np.append(np.full(19, 0.9), 0.3)
    # Of 20 + 1, one may be missed: the lowest, 0.3.
    assert threshold_between(0.1, anomalous, 0.05) == pytest.approx(
        expit((logit(0.1) + logit(0.3)) / 2)
    )
    assert threshold_between(0.1, anomalous, 0.1) == pytest.approx(0.5)  # 0.1 and 0.9
    assert threshold_between(0.4, anomalous, 0.05) == 0.4  # no room above
    assert threshold_between(0.1, anomalous[:10], 0.05) == 0.1  # too few for the miss rate
    saturated = threshold_between(5e-6, np.full(40, 1.0), 0.05)
    assert 0.5 < saturated < 0.999
    assert threshold_between(0.0, np.full(40, 1.0), 0.05) == pytest.approx(0.5)
    assert threshold_between(1.0, np.full(40, 1.0), 0.05) == 1.0
