import numpy as np
import pytest
from conftest import draw_nail

from blackswan.data.foreground import background_of, has_contrast, lies_inside, split_off


def test_a_part_before_a_plain_ground_is_split_off():
    image = draw_nail(30)
    difference, above = split_off(image)
    assert background_of(image).tolist() == [200, 200, 200]
    assert has_contrast(difference, above)
    assert lies_inside(above)
    assert above[64, 64]
    assert not above[[0, -1]].any()


@pytest.mark.parametrize("noise", [0, 5])
def test_a_plain_ground_alone_has_no_contrast(noise):
    image = np.random.default_rng(0).normal(90, noise, (40, 50, 3)).round().astype(np.uint8)
    assert not has_contrast(*split_off(image))


def test_what_reaches_over_the_border_or_is_a_speck_lies_not_inside():
    speck, half = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    speck[50, 50:55] = half[:50] = True
    assert not lies_inside(speck)
    assert not lies_inside(half)
