"""Verdicts against the BetaBinomial by hand, repeated draws, and frames that follow one another."""

from math import comb

import numpy as np
import pandas as pd
import pytest

from blackswan.evaluation.verdict import (
    HOLDS,
    UNSURE,
    VOID,
    correlation_frames,
    judge,
    places,
    units,
    verdict,
)
from blackswan.seeds import generator


def table(scores, source="clip", timed=True, **columns):
    count = len(scores)
    return pd.DataFrame(
        {
            "source": source,
            "group": [f"{number}" for number in range(count)],
            "timestamp_s": np.arange(count, dtype=float) if timed else np.nan,
            "image_score": scores,
            **columns,
        }
    )


def tail(n, r, m, flags):
    """P(K >= flags): how the m test scores may lie among the n others, counted (Polya's urn)."""
    # The k-th of the flagged lie above the r-th largest of n: C(r+k-1, k) C(n-r+m-k, m-k).
    ways = [comb(r + k - 1, k) * comb(n - r + m - k, m - k) for k in range(m + 1)]
    assert sum(ways) == comb(n + m, m)
    return sum(ways[flags:]) / sum(ways)


@pytest.mark.parametrize(("n", "r", "m", "flags"), [(19, 1, 5, 1), (99, 5, 40, 6), (59, 3, 12, 0)])
def test_the_tail_by_counting(n, r, m, flags):
    assert verdict(n, r, m, flags).p_value == pytest.approx(tail(n, r, m, flags))


def test_three_verdicts():
    assert verdict(199, 10, 60, 2).verdict == HOLDS
    assert verdict(199, 10, 60, 12).verdict == VOID
    assert verdict(199, 10, 8, 0).verdict == UNSURE  # nothing flagged, but of how few
    assert verdict(19, 1, 2, 2).verdict == VOID
    assert verdict(19, 1, 0, 0).verdict == UNSURE
    assert verdict(199, 10, 60, 2).advice == ""
    assert "longer clip" in verdict(199, 10, 8, 0).advice
    assert "do not rely on alpha" in verdict(199, 10, 60, 12).advice


@pytest.mark.slow
@pytest.mark.parametrize(("n", "alpha"), [(39, 0.05), (199, 0.05), (99, 0.1)])
def test_wrongly_void_at_most_one_time_in_twenty_and_rightly_at_ten_times_alpha(n, alpha):
    rng = generator(0, "void", str(n))
    said = {"holds": [], "tenfold": []}
    for _ in range(200):
        calibration = table(rng.random(n), timed=False)
        threshold = np.sort(calibration.image_score)[n - int(alpha * (n + 1) + 1e-9)]
        for kind, scores in {
            "holds": rng.random(60),
            "tenfold": np.where(rng.random(60) < 10 * alpha, 2.0, 0.0),
        }.items():
            normals = table(scores, timed=False, flagged=scores > threshold)
            said[kind].append(judge(calibration, normals, alpha).verdict)
    assert said["holds"].count(VOID) <= 200 * 0.05 + 2 * (200 * 0.05 * 0.95) ** 0.5
    assert said["tenfold"].count(VOID) >= 200 * 0.95


def test_independent_scores_are_all_new_and_those_that_linger_are_not():
    rng = generator(0, "autocorrelation")
    assert correlation_frames(table(rng.standard_normal(500))) == 1
    # Of frames that repeat 8 times, 1 - lag / 8 are equal: below 1 / e after 5.06.
    assert correlation_frames(table(rng.standard_normal(800).repeat(8))) in (5, 6)
    two = pd.concat([table(rng.standard_normal(400).repeat(8), name) for name in "ab"])
    assert correlation_frames(two) in (5, 6)
    assert correlation_frames(table(rng.standard_normal(500), timed=False)) == 1
    assert correlation_frames(table(np.zeros(10))) == 1


def test_a_correlation_time_counts_once_and_a_group_of_photos_too():
    videos = pd.concat([table(np.zeros(7), "a"), table(np.zeros(4), "b")], ignore_index=True)
    videos = videos.sample(frac=1, random_state=0)
    found = units(videos, 3).sort_index()
    assert found.source.tolist() == ["a"] * 7 + ["b"] * 4
    assert found.unit.tolist() == [*["0.0"] * 3, *["1.0"] * 3, "2.0", *["0.0"] * 3, "1.0"]
    photos = table(np.zeros(4), timed=False).assign(group=["x", "x", "y", "y"])
    assert units(photos, 3).unit.tolist() == ["x", "x", "y", "y"]
    flagged = np.array([True, False, True, True])
    found = judge(table(np.zeros(40), timed=False), photos.assign(flagged=flagged), 0.05)
    assert (found.images, found.flags) == (2, 2)  # 1.5 of two groups


def test_frames_that_were_thinned_count_by_their_places():
    videos = pd.concat([table(np.zeros(7), "a"), table(np.zeros(4), "b")], ignore_index=True)
    videos["place"] = places(videos)
    assert videos.place.tolist() == [*range(7), *range(4)]
    thinned = videos.iloc[::3]  # 0, 3 and 6 of a, 2 of b
    assert units(thinned, 3).unit.tolist() == ["0.0", "1.0", "2.0", "0.0"]
    assert units(thinned.drop(columns="place"), 3).unit.tolist() == ["0.0"] * 4
    assert places(table(np.zeros(2), timed=False)).isna().all()


def test_a_stricter_level_says_less():
    assert verdict(39, 1, 1, 1, 0.05).verdict == VOID  # one image in forty
    assert verdict(39, 1, 1, 1, 0.05 / 3).verdict == UNSURE


def test_frames_that_repeat_prove_nothing_new():
    rng = generator(0, "repeated")
    calibration = table(rng.random(30).repeat(10))
    flags = np.zeros(60, bool)
    flags[30:40] = True  # one event of ten frames
    found = judge(calibration, table(np.zeros(60), flagged=flags), 0.05)
    assert found.images <= 8
    assert found.verdict == UNSURE
