"""Each drift is exact, grows with its severity, and leaves an image alone at none."""

from hashlib import sha256

import cv2
import numpy as np
import pytest

from blackswan.drift import corruptions
from blackswan.drift.corruptions import HIGHEST, MOVING, NAMES, corrupt, corrupt_mask
from blackswan.errors import InputError


@pytest.fixture(scope="module")
def image():
    """Return a smooth texture with a few edges: what moves away from itself gets less like it."""
    rng = np.random.default_rng(5)
    clouds = cv2.resize(rng.uniform(0, 255, (6, 7, 3)).astype(np.float32), (112, 96))
    clouds = cv2.GaussianBlur(clouds, (0, 0), 4)
    fine = cv2.GaussianBlur(rng.normal(0, 60, (96, 112, 3)).astype(np.float32), (0, 0), 1.5)
    return np.clip(clouds + fine, 20, 235).astype(np.uint8)


def distance(image, other):
    """Return the mean absolute difference in grey levels."""
    return float(np.abs(image.astype(float) - other).mean())


@pytest.mark.parametrize("name", NAMES)
def test_severity_0_changes_no_pixel(image, name):
    kept = image.copy()
    assert (corrupt(image, name, 0, seed=1) == kept).all()
    assert corrupt(image, name, 3, seed=1) is not image
    assert (image == kept).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_difference_in_grey_levels_grows_with_the_severity(image, name):
    for seed in range(3):
        found = [distance(image, corrupt(image, name, severity, seed)) for severity in range(6)]
        assert found[0] == 0
        assert (np.diff(found) > 0).all(), found


@pytest.mark.parametrize("name", NAMES)
def test_a_drift_is_a_function_of_image_severity_and_seed(image, name):
    first = corrupt(image, name, 2.5, seed=7)
    assert first.dtype == np.uint8
    assert first.shape == image.shape
    assert (first == corrupt(image.copy(), name, 2.5, seed=7)).all()


def test_the_bytes_stay_what_they_were():
    """A change of any drift changes what was measured with it."""
    flat = np.full((32, 40, 3), 90, np.uint8)
    flat[8:20, 10:25] = (200, 30, 120)
    drawn = {name: corrupt(flat, name, 3, seed=0) for name in ("brightness", "exposure", "gamma")}
    assert [int(drawn[name][0, 0, 0]) for name in drawn] == [118, 105, 63]
    noisy = corrupt(flat, "salt_and_pepper", 5, seed=0)
    assert sha256(noisy.tobytes()).hexdigest()[:12] == "1c6d97a8ea75"


def test_what_is_on_the_lens_stays_and_noise_does_not(image):
    dark, light = np.full((64, 64, 3), 100, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    for name in ("dust", "illumination_gradient"):
        shade = corrupt(light, name, 4, seed=3) / 2.0
        assert np.abs(shade - corrupt(dark, name, 4, seed=3)).max() <= 1
    for name in ("sensor_noise", "salt_and_pepper"):
        changed = [
            np.sign(corrupt(each, name, 5, seed=3) - each.astype(int)) for each in (dark, light)
        ]
        assert (changed[0] != changed[1]).mean() > 0.03


def test_masks_move_along_and_nothing_else_changes_them():
    image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    mask[20:40, 24:34] = True
    image[mask] = 255
    for name in NAMES:
        moved = corrupt_mask(mask, name, 3, seed=2)
        assert (corrupt_mask(mask, name, 0, seed=2) == mask).all()
        if name in MOVING:
            white = corrupt(image, name, 3, seed=2)[..., 0] > 127
            assert (moved != mask).any()
            assert (moved != white).mean() < 0.01
        else:
            assert (moved == mask).all()


def test_amounts_run_evenly_between_severities():
    assert corruptions.amount_of("brightness", 2.5) == 22
    assert corruptions.amount_of("dust", 0.5) == 0.5
    assert {len(amounts) for amounts in corruptions.AMOUNTS.values()} == {HIGHEST}


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        ("fog", 1, "no drift is called fog; choose one of brightness, contrast"),
        ("dust", 6, "the severity 6 of dust must lie between 0 and 5"),
        ("dust", -1, "the severity -1 of dust must lie between 0 and 5"),
        ("dust", float("nan"), "the severity nan of dust must lie between 0 and 5"),
    ],
)
def test_an_unknown_drift_or_severity_is_named(image, name, severity, message):
    with pytest.raises(InputError, match=message):
        corrupt(image, name, severity, seed=0)


def test_each_drift_is_of_one_family():
    assert sorted(name for names in corruptions.FAMILIES.values() for name in names) == sorted(
        NAMES
    )
