import cv2
import numpy as np
import pytest
from conftest import draw_nail

from blackswan.data.pose import find_pose, lay
from blackswan.data.preprocessing import Preprocessing, Step


@pytest.mark.parametrize("background", [20, 230])
def test_parts_that_lie_any_way_round_end_alike(background):
    lies = {0: (0, 0), 35: (8, -6), 90: (0, 10), 180: (-9, 4), 301: (5, 5)}
    drawn = [
        draw_nail(degrees, shift=shift, background=background, colour=(120, 110, 100))
        for degrees, shift in lies.items()
    ]
    shafts = [lay(image, find_pose(image)) for image in drawn]
    for image in shafts[1:]:
        assert np.abs(image.astype(int) - shafts[0]).mean() < 2
    part = np.abs(shafts[0].astype(int) - background).max(2) > 50
    rows, columns = np.nonzero(part)
    assert rows.min() + rows.max() == pytest.approx(127, abs=2)
    assert columns.min() + columns.max() == pytest.approx(127, abs=2)
    assert part[:64].sum() > 1.5 * part[64:].sum()  # the head lies above


def test_the_long_axis_lies_along_the_longer_side():
    image = draw_nail(20, size=(100, 160))
    laid = lay(image, find_pose(image))
    rows, columns = np.nonzero(laid[..., 0] < 150)
    assert np.ptp(columns) == pytest.approx(70, abs=3)
    assert np.ptp(rows) == pytest.approx(24, abs=3)


def test_a_part_longer_than_the_image_shrinks_to_fit():
    image = draw_nail(45, length=150, size=(128, 128))
    pose = find_pose(image)
    assert np.hypot(*pose[0, :2]) < 1
    laid = lay(image, pose)
    assert (laid[[0, -1]] > 100).mean() > 0.8  # it does not reach out of the picture


def test_a_large_image_is_laid_like_a_small_one(monkeypatch):
    image = draw_nail(35, shift=(8, -6), size=(120, 150))
    large = cv2.resize(image, (600, 480), interpolation=cv2.INTER_CUBIC)
    exact = lay(large, find_pose(large))
    monkeypatch.setattr("blackswan.data.pose.LOOKED_AT", 300)
    found = lay(large, find_pose(large))
    assert np.abs(found.astype(int) - exact).mean() < 1
    assert find_pose(np.full((480, 600, 3), 9, np.uint8)) is None


def test_a_mask_moves_with_its_image_and_loses_no_speck():
    image = draw_nail(77, shift=(6, 3))
    mask = np.zeros(image.shape[:2], bool)
    mask[60, 70] = True
    marked = image.copy()
    marked[60, 70] = (255, 0, 0)
    pose = find_pose(image)
    moved = lay(mask, pose, mask=True)
    assert moved.dtype == np.bool_
    assert 1 <= moved.sum() <= 9
    laid = lay(marked, pose).astype(int) - lay(image, pose)
    assert moved[np.unravel_index(np.abs(laid).sum(2).argmax(), mask.shape)]


@pytest.mark.parametrize(
    "image",
    [
        np.full((64, 64, 3), 128, np.uint8),
        cv2.circle(np.full((64, 64, 3), 220, np.uint8), (30, 33), 15, (20, 20, 20), -1),
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8),
        np.hstack([np.zeros((64, 30, 3), np.uint8), np.full((64, 34, 3), 200, np.uint8)]),
    ],
    ids=["empty", "round", "noise", "no background"],
)
def test_what_has_no_pose_stays_as_it_lies(image):
    assert find_pose(image) is None
    prepare = Preprocessing(steps=[Step(crop="none", size=None)], pose="upright")
    np.testing.assert_array_equal(prepare(image), image)


def test_a_crop_is_of_the_part_that_was_laid():
    prepare = Preprocessing(steps=[Step(crop=(40, 20, 48, 88), size=(44, 24))], pose="upright")
    upright, turned = prepare(draw_nail(0)), prepare(draw_nail(140, shift=(-5, 7)))
    assert upright.shape == (44, 24, 3)
    assert np.abs(upright.astype(int) - turned).mean() < 3
