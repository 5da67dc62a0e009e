"""Drift tests hold their level where nothing drifts, and find what does."""

import numpy as np
import pytest
from conftest import make_model
from scipy.stats import binom

from blackswan.drift import detection
from blackswan.drift.detection import WINDOW_TESTS, Cusum, limit_for, reports, strangeness
from blackswan.drift.embedding import describe
from blackswan.errors import InputError
from blackswan.seeds import generator

DRAWS = 500


def draw(rng, count, shift=0.0):
    """Skewed scores and three dependent features, as embeddings are."""
    base = rng.standard_normal((count, 2))
    features = np.column_stack([base, base.sum(1) + rng.exponential(1, count)])
    return np.column_stack([rng.gamma(2, 1, count), features]) + shift


@pytest.mark.slow
@pytest.mark.parametrize("name", WINDOW_TESTS)
def test_no_drift_is_found_more_often_than_the_level_says(name):
    rng, test = generator(1, name), WINDOW_TESTS[name]
    found = [test(draw(rng, 20), draw(rng, 20), rng) <= 0.05 for _ in range(DRAWS)]
    assert sum(found) <= binom.ppf(0.999, DRAWS, 0.05)


@pytest.mark.parametrize("name", WINDOW_TESTS)
def test_a_drift_is_found(name):
    rng, test = generator(2, name), WINDOW_TESTS[name]
    found = [test(draw(rng, 40), draw(rng, 40, shift=1.5), rng) <= 0.05 for _ in range(40)]
    assert np.mean(found) >= 0.95


@pytest.mark.slow
def test_a_stream_without_drift_has_a_report_per_1000_images_at_most():
    rng, found = np.random.default_rng(3), []
    for number in range(100):
        cusum = Cusum(rng.random((40, 1)), 1000, seed=number)
        found.append(len(reports(cusum, rng.random((500, 1)))))
    rate = np.mean(found) / 500
    assert rate <= 1 / 1000 + 3 * np.std(found) / np.sqrt(100) / 500


def test_a_stream_that_drifts_is_reported_soon_to_either_side():
    rng = np.random.default_rng(4)
    for shift in (-3, 3):
        delays = []
        for number in range(40):
            cusum = Cusum(rng.standard_normal((100, 2)), 1000, seed=number)
            delays.append(reports(cusum, rng.standard_normal((50, 2)) + shift)[:1])
        assert np.mean([len(delay) for delay in delays]) >= 0.95
        assert np.median([delay[0] for delay in delays if delay]) < 25


def test_more_held_out_images_need_no_higher_limit():
    assert limit_for(100, 1000) <= limit_for(20, 1000)
    assert limit_for(20, 100) < limit_for(20, 1000)


def test_the_bets_pay_1_in_the_mean_without_drift():
    places = (np.arange(100_000) + 0.5) / 100_000
    assert detection._bets(places).mean() == pytest.approx(1, abs=0.03)


def test_strangeness_counts_deviations():
    usual = np.array([[0.0, 5.0], [2.0, 5.0]])
    assert strangeness(np.array([[1.0, 5.0], [3.0, 5.0]]), usual).tolist() == [0, np.sqrt(2)]


def test_images_are_described_by_score_and_embedding():
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (16, 16, 3)).astype(np.uint8) for _ in range(11)]
    model = make_model()
    rows = describe(model.detector, images)
    assert rows.shape == (11, 7)
    assert rows[:, 0].tolist() == model.detector.score(images).image_scores.tolist()
    assert rows[3, 1:4] == pytest.approx(images[3].reshape(-1, 3).mean(0), abs=1e-3)
    images.append(np.zeros((16, 20, 3), np.uint8))
    with pytest.raises(InputError, match="an image of 20 x 16 pixels follows others of 16 x 16"):
        describe(model.detector, images)


@pytest.mark.parametrize("name", WINDOW_TESTS)
def test_what_cannot_be_tested_is_refused(name):
    rng = np.random.default_rng(6)
    good = draw(rng, 20)
    for reference, window, message in [
        (good[:9], good, "9 held-out normal images are too few to test for drift, it takes 10"),
        (good, good[:0], "0 images of the window are too few to test for drift, it takes 10"),
        (good, np.ones((20, 4)), "all 20 images of the window are alike, as copies are; see"),
        (good, good[:, :3], "have 4 values each and those of the window 3; describe both by one"),
        (good, np.where(good > 3, np.nan, good), "images of the window: .* scores are not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            WINDOW_TESTS[name](reference, window, rng)


def test_a_stream_that_cannot_be_watched_is_refused():
    rng = np.random.default_rng(7)
    with pytest.raises(
        InputError, match="9 held-out normal images, near copies counted once, are too few"
    ):
        Cusum(rng.random((9, 1)), 1000, seed=0)
    cusum = Cusum(rng.random((20, 1)), 1000, seed=0)
    with pytest.raises(InputError, match="all 5 images of the stream score the same, as copies"):
        reports(cusum, np.ones((5, 1)))
