"""The fixed colour scale: a good part looks like its photo, whatever the other images are."""

import numpy as np
import pytest

from blackswan.reporting.heatmaps import (
    OPACITY,
    HeatmapScale,
    fit,
    fit_map,
    fit_mask,
    outline,
    overlay,
)

SCALE = HeatmapScale(threshold=10, top=40)
GREY = np.full((4, 4, 3), 128, np.uint8)


def test_position_is_linear_below_and_above_the_threshold():
    values = np.array([-3, 0, 5, 10, 25, 40, 900])
    assert SCALE.position(values).tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize(
    "scale",
    [
        HeatmapScale(10, 10),
        HeatmapScale(0, 0),
        HeatmapScale(0, 3),
        HeatmapScale(-5, -2),
        HeatmapScale(-2, -2),
    ],
)
def test_marks_rise_and_the_threshold_is_the_middle(scale):
    start, middle, end = scale.marks
    assert start <= middle < end
    assert scale.position(np.array([end, end + 1])).tolist() == [1, 1]
    assert scale.position(np.array([middle]))[0] <= 0.5
    assert scale.position(np.array([start]))[0] == 0


def test_a_good_part_is_the_photo_and_never_red():
    assert (overlay(GREY, np.zeros((4, 4), np.float32), SCALE) == GREY).all()
    below = overlay(GREY, np.full((4, 4), 4.9, np.float32), SCALE).astype(int)
    assert np.abs(below - 128).max() <= 8
    at = overlay(GREY, np.full((4, 4), 10, np.float32), SCALE).astype(int)
    assert at[0, 0].tolist() == [159, 141, 106]  # a quarter of amber
    top = overlay(GREY, np.full((4, 4), 40, np.float32), SCALE).astype(int)
    assert top[0, 0].tolist() == [159, 19, 52]  # dark red


def test_the_colour_of_a_pixel_depends_on_its_value_alone():
    anomaly_map = np.full((4, 4), 12, np.float32)
    alone = overlay(GREY, anomaly_map, SCALE)[0, 0]
    anomaly_map[3, 3] = 1e6
    assert (overlay(GREY, anomaly_map, SCALE)[0, 0] == alone).all()


def test_opacity_rises_with_the_value():
    assert (np.diff(OPACITY) > 0).all()
    assert OPACITY[0] == 0


def test_outline_surrounds_the_mask_and_leaves_what_it_covers():
    image, mask = np.full((30, 30, 3), 90, np.uint8), np.zeros((30, 30), bool)
    mask[12:15, 12:15] = True
    drawn = outline(image, mask)
    assert (drawn[mask] == 90).all()
    assert (drawn[10, 13] == 255).all()
    assert drawn[8:13, 13, 0].tolist() == [90, 0, 255, 0, 90]
    assert (image == 90).all()
    assert outline(image, None) is image
    assert outline(image, np.zeros((30, 30), bool)) is image


def test_small_things_survive_shrinking():
    mask, anomaly_map = np.zeros((300, 600), bool), np.zeros((300, 600), np.float32)
    mask[101, 401] = True
    anomaly_map[101, 401] = 7
    assert fit(np.zeros((300, 600, 3), np.uint8), 60).shape == (30, 60, 3)
    assert fit_mask(mask, 60).shape == (30, 60)
    assert fit_mask(mask, 60).any()
    assert fit_map(anomaly_map, 60).shape == (30, 60)
    assert fit_map(anomaly_map, 60).max() > 4
    assert fit_map(anomaly_map, 60).min() == 0
    assert fit(np.zeros((1, 900, 3), np.uint8), 60).shape == (1, 60, 3)
