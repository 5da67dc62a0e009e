import numpy as np
import pytest

from blackswan.data.augmentation import Params, augment, draw_matrix
from blackswan.seeds import generator

NOTHING = {
    "copies": 1,
    "horizontal_flip_probability": 0,
    "vertical_flip_probability": 0,
    "rotation": {"probability": 0, "max_degrees": 10},
    "affine": {"probability": 0, "max_shift": 0.1, "max_zoom": 0.1, "max_shear_degrees": 5},
}


def params(**changes):
    return Params.model_validate({**NOTHING, **changes})


def picture(height=24, width=30):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), bool)
    mask[4:9, 6:15] = True
    return image, mask


def test_without_probability_nothing_changes():
    image, mask = picture()
    changed, moved = augment(image, mask, params(), generator(0))
    assert np.array_equal(changed, image)
    assert np.array_equal(moved, mask)
    assert augment(image, None, params(), generator(0))[1] is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"horizontal_flip_probability": 1}, lambda array: array[:, ::-1]),
        ({"vertical_flip_probability": 1}, lambda array: array[::-1]),
        (
            {"horizontal_flip_probability": 1, "vertical_flip_probability": 1},
            lambda array: array[::-1, ::-1],
        ),
    ],
)
def test_flips_are_exact_in_image_and_mask(changes, expected):
    image, mask = picture()
    changed, moved = augment(image, mask, params(**changes), generator(0))
    assert np.array_equal(changed, expected(image))
    assert np.array_equal(moved, expected(mask))


def test_each_change_has_its_own_probability():
    chosen = params(
        horizontal_flip_probability=0.3, rotation={"probability": 0.6, "max_degrees": 20}
    )
    matrices = [draw_matrix(24, 30, chosen, generator(0, str(n))) for n in range(1000)]
    flipped = np.mean([np.linalg.det(matrix) < 0 for matrix in matrices])
    angles = np.array([np.degrees(np.arctan2(m[1, 0], m[1, 1])) for m in matrices])
    turned = np.abs(angles) > 1e-9
    assert flipped == pytest.approx(0.3, abs=0.05)
    assert turned.mean() == pytest.approx(0.6, abs=0.05)
    assert 18 < np.abs(angles).max() <= 20


def test_affine_stays_in_its_ranges():
    affine = {"probability": 1, "max_shift": 0.1, "max_zoom": 0.2, "max_shear_degrees": 10}
    matrices = [
        draw_matrix(20, 40, params(affine=affine), generator(0, str(n))) for n in range(500)
    ]
    centre = np.array([19.5, 9.5, 1])
    shifts = np.array([(matrix @ centre - centre)[:2] for matrix in matrices])
    assert (np.abs(shifts).max(axis=0) <= [4, 2]).all()
    assert (np.abs(shifts).max(axis=0) > [3.5, 1.7]).all()
    zooms = np.array([matrix[0, 0] for matrix in matrices])
    assert zooms.min() == pytest.approx(0.8, abs=0.02)
    assert zooms.max() == pytest.approx(1.2, abs=0.02)
    shears = np.degrees(np.arctan([matrix[0, 1] / matrix[0, 0] for matrix in matrices]))
    assert 9 < np.abs(shears).max() <= 10


def test_mask_and_image_move_together():
    image = np.full((64, 64, 3), 20, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 24:36] = True
    image[mask] = 220
    chosen = params(
        rotation={"probability": 1, "max_degrees": 45},
        affine={"probability": 1, "max_shift": 0.1, "max_zoom": 0.2, "max_shear_degrees": 10},
    )
    for draw in range(20):
        changed, moved = augment(image, mask, chosen, generator(0, str(draw)))
        bright = changed[..., 0] > 120
        assert (bright ^ moved).sum() <= 0.15 * moved.sum()


def test_the_anomaly_never_leaves_its_image():
    image, mask = picture()
    mask[:] = False
    mask[0, 0] = True
    affine = {"probability": 1, "max_shift": 0.5, "max_zoom": 0, "max_shear_degrees": 0}
    for draw in range(50):
        changed, moved = augment(image, mask, params(affine=affine), generator(0, str(draw)))
        assert moved.any()


def test_the_same_seed_makes_the_same_copy():
    image, mask = picture()
    chosen = params(rotation={"probability": 1, "max_degrees": 45})
    first, again, other = (
        augment(image, mask, chosen, generator(0, name)) for name in ("a", "a", "b")
    )
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
