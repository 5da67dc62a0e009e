"""The plan of the folds by hand, what no fit may see, and the scores that come of it."""

import numpy as np
import pandas as pd
import pytest

from blackswan.errors import InputError
from blackswan.evaluation import calibration
from blackswan.evaluation.calibration import AHEAD, LEFT_OUT
from blackswan.evaluation.thresholds import largest_p_values, largest_threshold
from blackswan.seeds import generator


def clip(count, source="clip", step=1.0, start=0.0):
    return pd.DataFrame(
        {
            "path": [f"{source}/{number:04d}" for number in range(count)],
            "source": source,
            "group": f"{source}/000000",
            "timestamp_s": start + step * np.arange(count),
        }
    )


def photos(groups):
    return pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(len(groups))],
            "source": "",
            "group": groups,
            "timestamp_s": np.nan,
        }
    )


def test_blocks_and_forward_by_hand():
    *blocks, forward = calibration.plan(clip(15), "block_and_forward", 1.0, 0)
    assert [fold.kind for fold in blocks] == [LEFT_OUT] * 5
    assert [fold.scored.tolist() for fold in blocks] == [
        [0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14],
    ]  # fmt: skip
    # Closer than three guard gaps to the block is dropped: two frames on either side.
    assert blocks[0].fitted.tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert blocks[2].fitted.tolist() == [0, 1, 2, 3, 11, 12, 13, 14]
    assert forward.kind == AHEAD
    assert forward.scored.tolist() == [10, 11, 12, 13, 14]
    assert forward.fitted.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("guard", [0.0, 0.25, 1.0])
def test_each_frame_is_left_out_once_and_none_near_it_is_learnt_from(guard):
    images = pd.concat([clip(23, "a", 0.4), clip(31, "b", 0.3, 100)]).sample(
        frac=1, random_state=0, ignore_index=True
    )
    folds = calibration.plan(images, "block_and_forward", guard, 0)
    left_out = [fold for fold in folds if fold.kind == LEFT_OUT]
    scored = np.concatenate([fold.scored for fold in left_out])
    assert sorted(scored) == list(range(54))
    for fold in folds:
        learnt, asked = images.iloc[fold.fitted], images.iloc[fold.scored]
        assert set(asked.source) == {"a", "b"}  # each video has a part of its own in each fold
        for source in ("a", "b"):
            apart = np.abs(
                learnt.timestamp_s[learnt.source == source].to_numpy()[:, None]
                - asked.timestamp_s[asked.source == source].to_numpy()
            )
            assert apart.min() >= max(3 * guard, 1e-9)
            if fold.kind == AHEAD:
                assert (
                    learnt.timestamp_s[learnt.source == source].max()
                    < asked.timestamp_s[asked.source == source].min()
                )


def test_groups_stay_whole_and_every_fold_has_its_share():
    groups = np.array([f"part {number // 3:02d}" for number in range(36)])
    folds = calibration.deal(groups, 5, 0)
    assert sorted(np.concatenate([fold.scored for fold in folds])) == list(range(36))
    assert sorted(len(fold.scored) for fold in folds) == [6, 6, 6, 9, 9]
    for fold in folds:
        names = [{groups[index] for index in part} for part in (fold.fitted, fold.scored)]
        assert names[0].isdisjoint(names[1])
        assert len(names[0] | names[1]) == 12
    again = calibration.deal(groups, 5, 0)
    assert [fold.scored.tolist() for fold in again] == [fold.scored.tolist() for fold in folds]
    other = calibration.deal(groups, 5, 1)
    assert [fold.scored.tolist() for fold in other] != [fold.scored.tolist() for fold in folds]


@pytest.mark.parametrize(
    ("count", "per_group", "folds"),
    [(12, 1, 12), (40, 1, 20), (40, 4, 10), (100, 1, 20), (150, 1, 13), (400, 1, 5)],
)
def test_the_fewer_photos_the_more_folds(count, per_group, folds):
    groups = [f"part {number // per_group:03d}" for number in range(count)]
    assert len(calibration.plan(photos(groups), "cross", 0.0, 0)) == folds


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(InputError, match="at least 2 groups, there is 1; add some"):
        calibration.plan(photos(["one", "one"]), "cross", 0.0, 0)
    with pytest.raises(InputError, match=r"15 normal frames and split\.guard_seconds = 20 leave"):
        calibration.plan(clip(15), "block_and_forward", 20.0, 0)
    with pytest.raises(InputError, match="choose auto or cross"):
        calibration.choose("block_and_forward", photos(["a", "b"]))


def test_auto_goes_by_the_time_of_the_images():
    assert calibration.choose("auto", clip(3)) == "block_and_forward"
    assert calibration.choose("auto", photos(["a", "b"])) == "cross"
    assert calibration.choose("auto", pd.concat([clip(3), photos(["a"])])) == "cross"
    assert calibration.choose("cross", clip(3)) == "cross"
    assert calibration.choose("split", clip(3)) == "split"


def test_the_source_is_that_of_the_group_of_a_frame():
    images = pd.DataFrame(
        {"group": ["day/clip.mp4/000001", "part/7"], "timestamp_s": [0.5, np.nan]}
    )
    assert calibration.with_source(images).source.tolist() == ["day/clip.mp4", ""]


def fit_mean(values):
    """A detector that learns the mean, and whose maps peak at ten times the score."""

    def fit(fitted):
        mean = values[fitted].mean()

        def score(positions):
            scores = np.abs(values[positions] - mean)
            return scores, 10 * scores

        return score

    return fit


def test_scores_come_from_fits_that_have_not_seen_the_image(tmp_path):
    values = np.array([0.0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 9, 9, 9])
    images = clip(15)
    folds = calibration.plan(images, "block_and_forward", 0.0, 0)
    scores = calibration.calibrate(images, folds, fit_mean(values))
    left_out, ahead = calibration.sets_of(scores, "image_score")
    assert left_out.tolist() == [3.75] * 3 + [2.5] * 3 + [1.25] * 3 + [0.0] * 3 + [7.5] * 3
    assert ahead == pytest.approx([3 - 1.2, 3 - 1.2, 9 - 1.2, 9 - 1.2, 9 - 1.2])
    assert calibration.sets_of(scores, "map_peak")[0].tolist() == (10 * left_out).tolist()
    calibration.write_scores(tmp_path, scores, "block_and_forward")
    read = calibration.read_scores(tmp_path)
    pd.testing.assert_frame_equal(read.drop(columns="method"), scores)
    assert calibration.described(read, 0.05) == (
        "15 normal frames, each scored by a fit without its block of time, the last 5 also by a "
        "fit on the earlier ones, alpha 0.05"
    )
    assert calibration.read_scores(tmp_path / "other") is None


def test_exchangeable_groups_keep_alpha():
    rates = []
    for draw in range(100):
        rng = generator(draw, "cross")
        values = rng.standard_normal(300)
        images = photos([f"{number}" for number in range(60)])
        scores = calibration.calibrate(
            images, calibration.plan(images, "cross", 0.0, 0), fit_mean(values[:60])
        )
        sets = calibration.sets_of(scores, "image_score")
        new = np.abs(values[60:] - values[:60].mean())
        threshold = largest_threshold(sets, 0.1)
        assert np.array_equal(new > threshold, largest_p_values(new, sets, 0.1) <= 0.1)
        rates.append((new > threshold).mean())
    error = np.std(rates, ddof=1) / np.sqrt(len(rates))
    assert np.mean(rates) <= 0.1 + 2.5 * error
