from typing import get_args

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from blackswan.data import synthesis
from blackswan.data.synthesis import (
    BRUSHES,
    FILLS,
    GeneratorName,
    Params,
    perlin_angles,
    perlin_noise,
    polygon_patches,
    synthesize,
)
from blackswan.seeds import generator

KINDS = get_args(GeneratorName)
PATCH = {
    "patches_min": 1,
    "patches_max": 3,
    "radius_min": 0.06,
    "radius_max": 0.2,
    "vertices_min": 5,
    "vertices_max": 12,
    "irregularity": 0.5,
    "noise_ratio": 0.5,
    "salt_ratio": 0.5,
}


def params(**changes):
    return Params(**{**PATCH, **changes})


def texture(height=120, width=160):
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 180, width)[None, :, None] + np.zeros((height, 1, 3))
    return (ramp + rng.normal(0, 12, (height, width, 3))).clip(1, 254).astype(np.uint8)


def test_every_generator_has_a_name():
    assert (*FILLS, *BRUSHES) == KINDS


@pytest.mark.parametrize("name", KINDS)
def test_outside_of_the_mask_nothing_changes(name):
    image = texture()
    for draw in range(10):
        before = image.copy()
        changed, mask = synthesize(image, name, params(), generator(0, name, str(draw)))
        assert np.array_equal(image, before)
        assert (changed.dtype, changed.shape) == (np.uint8, image.shape)
        assert (mask.dtype, mask.shape) == (np.bool_, image.shape[:2])
        assert np.array_equal(changed[~mask], image[~mask])
        assert np.abs(changed.astype(int) - image)[mask].mean() >= 2


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_makes_the_same_anomaly(name):
    image = texture()
    first = synthesize(image, name, params(), generator(3, "a"))
    again = synthesize(image, name, params(), generator(3, "a"))
    other = synthesize(image, name, params(), generator(3, "b"))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize(
    ("noise_ratio", "salt_ratio"), [(0.5, 0.5), (0.2, 0.9), (1.0, 0.25), (0.7, 0)]
)
def test_salt_and_pepper_has_its_ratios(noise_ratio, salt_ratio):
    image = np.full((400, 400, 3), 100, np.uint8)
    chosen = params(
        noise_ratio=noise_ratio,
        salt_ratio=salt_ratio,
        radius_min=0.3,
        radius_max=0.4,
        patches_min=3,
    )
    changed, mask = synthesize(image, "salt_and_pepper", chosen, generator(0))
    inside = changed[mask]
    noisy = (inside != 100).all(axis=1)
    assert set(np.unique(inside[noisy])) <= {0, 255}
    assert noisy.mean() == pytest.approx(noise_ratio, abs=0.02)
    assert (inside[noisy, 0] == 255).mean() == pytest.approx(salt_ratio, abs=0.02)


def test_a_regular_polygon_has_the_area_of_one():
    chosen = params(
        patches_max=1,
        radius_min=0.1,
        radius_max=0.1,
        vertices_min=6,
        vertices_max=6,
        irregularity=0,
    )
    areas = [polygon_patches((400, 500), chosen, generator(0, str(n))).sum() for n in range(60)]
    hexagon = 3 * np.sqrt(3) / 2 * 40**2
    assert max(areas) == pytest.approx(hexagon, rel=0.06)  # less where the border cuts it
    assert min(areas) < 0.9 * hexagon


def test_irregularity_makes_patches_smaller_and_differ():
    def areas(irregularity):
        chosen = params(patches_max=1, radius_min=0.1, radius_max=0.1, irregularity=irregularity)
        return [polygon_patches((300, 300), chosen, generator(0, str(n))).sum() for n in range(80)]

    assert np.median(areas(1.0)) < 0.6 * np.median(areas(0.0))


def test_sizes_follow_the_shorter_side():
    def extent(shape):
        mask = polygon_patches(shape, params(patches_max=1, irregularity=0), generator(0, "size"))
        return mask.sum() / min(shape) ** 2

    assert extent((200, 400)) == pytest.approx(extent((400, 800)), rel=0.05)


def test_what_nobody_could_see_is_not_made():
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert synthesize(flat, "gaussian_blur", params(), generator(0)) is None
    assert synthesize(flat, "cut_paste", params(), generator(0)) is None
    changed, mask = synthesize(flat, "salt_and_pepper", params(), generator(0))
    assert set(np.unique(changed[mask])) == {0, 90, 255}


@pytest.mark.parametrize("name", ["poisson_blend", "missing_part"])
def test_a_flat_image_has_nothing_to_blend_in_and_nothing_to_miss(name):
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert synthesize(flat, name, params(), generator(0), flat) is None


@pytest.mark.parametrize("name", BRUSHES)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (1, 300), (300, 1), (2, 500), (9, 40)])
def test_images_of_few_rows_are_painted_or_left(name, size):
    image = generator(0, str(size)).integers(0, 256, (*size, 1)).repeat(3, axis=2).astype(np.uint8)
    for draw in range(2):
        made = synthesize(image, name, params(radius_max=0.5), generator(0, str(draw)))
        if made is None:
            assert name in ("poisson_blend", "missing_part") or size == (1, 1)
            continue
        changed, mask = made
        assert np.array_equal(changed[~mask], image[~mask])
        assert np.array_equal(changed, changed[..., :1].repeat(3, axis=2))  # grey as before
        again = synthesize(image, name, params(radius_max=0.5), generator(0, str(draw)))
        assert np.array_equal(again[0], changed)


@pytest.mark.parametrize("name", BRUSHES)
def test_a_large_box_is_painted_small_and_enlarged(monkeypatch, name):
    one = params(patches_max=1)  # the draws of a second depend on the size of the first
    image, other = smooth(generator(0)), smooth(generator(1))
    _, whole = synthesize(image, name, one, generator(0), other)
    monkeypatch.setattr(synthesis, "CANVAS", 30 * 30)
    changed, mask = synthesize(image, name, one, generator(0), other)
    assert np.array_equal(changed[~mask], image[~mask])
    assert 0.5 < mask.sum() / whole.sum() < 2
    assert np.argwhere(mask).mean(axis=0) == pytest.approx(np.argwhere(whole).mean(axis=0), abs=8)
    monkeypatch.setattr(synthesis, "STRIP", image.shape[1] * 5)
    again = synthesize(image, name, one, generator(0), other)
    assert np.abs(again[0].astype(int) - changed).max() <= 2  # where a strip begins, it is rounded


def smooth(rng, side=160):
    noise = rng.integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)


def test_what_lends_is_kept_small():
    image = np.zeros((3000, 4000, 3), np.uint8)
    height, width = synthesis.to_lend(image).shape[:2]
    assert (height / 3000, height * width / synthesis.LENT) == pytest.approx(
        (width / 4000, 1), abs=1e-3
    )
    assert np.shares_memory(synthesis.to_lend(image[:100]), image)


def test_cut_paste_pastes_a_part_of_the_image():
    rng = np.random.default_rng(0)
    image = rng.permutation(120 * 160)[:, None].reshape(120, 160, 1) % 65536
    coded = np.concatenate([image % 256, image // 256, image * 0], axis=2).astype(np.uint8)
    changed, mask = synthesize(coded, "cut_paste", params(), generator(1))
    codes = changed[..., 0] + 256 * changed[..., 1].astype(int)
    positions = {value: place for place, value in enumerate(image.ravel())}
    height, width = np.nonzero(mask)
    sources = np.array([positions[code] for code in codes[mask]])
    shifts = {
        tuple(shift)
        for shift in np.stack([(height - sources // 160) % 120, (width - sources % 160) % 160]).T
    }
    assert len(shifts) == 1
    assert shifts != {(0, 0)}


@pytest.mark.parametrize("kind", KINDS)
def test_strips_change_no_pixel(monkeypatch, kind):
    image = np.random.default_rng(5).integers(0, 256, (61, 47, 3)).astype(np.uint8)
    anomalous, mask = synthesize(image, kind, params(), generator(3))
    monkeypatch.setattr(synthesis, "STRIP", 47 * 8)
    again = synthesize(image, kind, params(), generator(3))
    assert np.array_equal(again[0], anomalous)
    assert np.array_equal(again[1], mask)


def test_perlin_noise_is_smooth_and_fills_its_range():
    noise = perlin_noise((97, 130), perlin_angles(8, generator(0)))
    assert noise.shape == (97, 130)
    assert 0 <= noise.min() < 0.3
    assert 0.7 < noise.max() <= 1
    assert np.abs(np.diff(noise, axis=0)).max() < 0.25
    assert np.abs(np.diff(noise, axis=1)).max() < 0.25
    # At the corners of the cells gradient noise is exactly zero, here 0.5.
    assert perlin_noise((80, 80), perlin_angles(8, generator(1)))[::10, ::10] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patches_min": 5}, "patches_min is larger than patches_max"),
        ({"radius_min": 0.3}, "radius_min is larger than radius_max"),
        ({"vertices_min": 13}, "vertices_min is larger than vertices_max"),
        ({"vertices_min": 2}, "greater than or equal to 3"),
        ({"radius_max": 0.6}, "less than or equal to 0.5"),
        ({"noise_ratio": 0}, "greater than 0"),
        ({"salt_ratio": 1.1}, "less than or equal to 1"),
    ],
)
def test_params_out_of_range(changes, words):
    with pytest.raises(ValidationError, match=words):
        params(**changes)
