"""Normal and anomalous images drift alike, and the table says where the promise breaks."""

import numpy as np
import pandas as pd
import pytest

from blackswan.data.dataset import Row, Split, write_shards
from blackswan.data.images import encode_png
from blackswan.detectors.interface import Scores
from blackswan.drift.corruptions import AMOUNTS
from blackswan.drift.pictures import drift_panels
from blackswan.drift.simulation import RAMP, STEP, Sample, draw, simulate, table_of
from blackswan.errors import InputError
from blackswan.evaluation.verdict import judge
from blackswan.seeds import generator

PLACE = slice(4, 8)
DRIFTS = ("brightness", "contrast", "shift")
CALIBRATION = pd.DataFrame(
    {"source": "", "group": [str(n) for n in range(39)], "timestamp_s": np.nan}
).assign(image_score=np.linspace(90, 109.5, 39))


class Brightest:
    """Scores an image by its mean grey, and a pixel by its own."""

    def score(self, images):
        grey = np.stack([image.mean(axis=2) for image in images]).astype(np.float32)
        return Scores(grey.mean(axis=(1, 2)), grey, images[0].shape[:2])


@pytest.fixture
def sample():
    """Twelve normal images of grey 100, the last first, and four with a bright square."""
    images, masks = [], []
    for number in range(16):
        image, mask = np.full((16, 16, 3), 100, np.uint8), np.zeros((16, 16), bool)
        if number >= 12:
            image[PLACE, PLACE], mask[PLACE, PLACE] = 250, True
        images.append(image)
        masks.append(mask)
    facts = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(16)],
            "label": [0] * 12 + [1] * 4,
            "source": "clip",
            "group": [f"clip/{number}" for number in range(16)],
            "timestamp_s": [*np.arange(12.0)[::-1], *np.arange(12.0, 16)],
            "place": [*np.arange(12.0)[::-1], *[np.nan] * 4],
        }
    )
    return Sample(facts, images, masks)


def tabulated(sample, threshold=109.5):
    found = list(simulate(Brightest(), sample, seed=0, batch_size=5, names=DRIFTS))
    scores = pd.concat([part for part, _ in found], ignore_index=True)
    pixels = [
        {"drift": part.drift[0], "severity": part.severity[0], **metrics} for part, metrics in found
    ]
    return scores, table_of(scores, pixels, CALIBRATION, threshold, alpha=0.05)


def test_the_promise_breaks_where_normal_images_pass_the_threshold(sample):
    scores, table = tabulated(sample)
    bright = table[(table.drift == "brightness") & (table.kind == STEP)]
    # 100 and 8, 16, ... grey levels, against 109.5
    assert bright.false_positive_rate.tolist() == [0, 0, 1, 1, 1, 1]
    assert (bright.breaks_at == 2).all()
    assert bright.image_auroc.tolist() == [1] * 6
    assert table[table.drift == "contrast"].breaks_at.isna().all()
    none = scores[scores.drift == "none"]
    assert none.severity.tolist() == [0] * 16
    assert len(scores) == 16 * (1 + 5 * len(DRIFTS)) + 12 * len(DRIFTS)
    assert drift_panels("drawn", table).axes


def test_a_ramp_drifts_in_order_of_time(sample):
    scores, table = tabulated(sample)
    ramp = scores[(scores.drift == "brightness") & (scores.kind == RAMP)]
    assert ramp.timestamp_s.tolist() == list(range(12))
    added = np.interp(ramp.severity, range(6), (0, *AMOUNTS["brightness"]))
    assert ramp.image_score.to_numpy() == pytest.approx(100 + np.rint(added))
    [row] = table[(table.drift == "brightness") & (table.kind == RAMP)].to_dict("records")
    assert row["false_positive_rate"] == pytest.approx((added > 9.5).mean())
    assert 1 < row["breaks_at"] < 5


def test_a_ramp_is_not_broken_by_the_first_of_many_looks(sample):
    first, none = (sample.normal.facts.assign(kind=kind, severity=0.0) for kind in (RAMP, STEP))
    scores = pd.concat(
        [
            none.assign(drift="none", image_score=100),
            first.assign(drift="dust", image_score=[110, *[100] * 11]),
            first.assign(drift="smear", image_score=[110, 110, *[100] * 10]),
        ]
    )
    ramps = table_of(scores, [], CALIBRATION, 109.5, alpha=0.05).set_index("drift")
    # One flag of one has a p-value of 2/40, which a single look would take; two have 6/1640.
    assert np.isnan(ramps.breaks_at["dust"])
    assert ramps.breaks_at["smear"] == 0


def test_frames_taken_evenly_from_a_clip_are_no_neighbours(tmp_path):
    rows = [
        Row(f"{n:02}.png", encode_png(np.full((16, 16, 3), 100, np.uint8)), None, 0, "", False,
            False, f"clip/{n // 5}", n / 25)
        for n in range(50)
    ]  # fmt: skip
    write_shards(tmp_path, "test", rows, 50)
    sample = draw(Split(tmp_path, "test"), 10)
    assert sample.facts.place.tolist() == [0, 5, 10, 16, 21, 27, 32, 38, 43, 49]
    calibration = pd.DataFrame({"source": "clip", "timestamp_s": np.arange(200) / 25}).assign(
        group="clip/0", image_score=generator(0, "lingers").random(40).repeat(5)
    )
    flagged = sample.normal.facts.assign(flagged=True)
    assert judge(calibration, flagged, 0.05).images == 10
    assert judge(calibration, flagged.drop(columns="place"), 0.05).images <= 4


def test_photos_drift_like_frames_and_count_by_groups(tmp_path):
    rows = [
        Row(f"{n}.png", encode_png(np.full((16, 16 + n % 2, 3), 100, np.uint8)), None, int(n >= 6),
            "scratch" if n >= 6 else "", False, False, f"{n // 2}", None)
        for n in range(10)
    ]  # fmt: skip
    write_shards(tmp_path, "test", rows, 10)
    sample = draw(Split(tmp_path, "test"), None)
    assert sample.facts.place.isna().all()
    _, table = tabulated(sample)
    bright = table[(table.drift == "brightness") & (table.kind == STEP)]
    assert bright.breaks_at.tolist() == [2] * 6
    assert (bright.n_normal == 6).all()


def test_masks_move_with_their_images(sample):
    _, table = tabulated(sample)
    moved = table[(table.drift == "shift") & (table.kind == STEP)]
    assert moved.pixel_auroc.min() > 0.99


def test_images_are_drawn_evenly_of_both_labels(tmp_path):
    rows = [
        Row(f"{n}.png", encode_png(np.full((16, 16, 3), n, np.uint8)), None, int(n >= 6), "", False,
            False, str(n), float(n))
        for n in range(9)
    ]  # fmt: skip
    write_shards(tmp_path, "test", rows, 4)
    sample = draw(Split(tmp_path, "test"), 3)
    assert sample.facts.path.tolist() == [f"{n}.png" for n in (0, 2, 5, 6, 7, 8)]
    assert [image[0, 0, 0] for image in sample.images] == [0, 2, 5, 6, 7, 8]
    assert [mask is None for mask in sample.masks] == [False] * 3 + [True] * 3
    assert len(draw(Split(tmp_path, "test"), None).images) == 9
    write_shards(tmp_path / "none", "test", rows[6:], 4)
    with pytest.raises(InputError, match="the test split has no normal image that could drift"):
        draw(Split(tmp_path / "none", "test"), 3)
