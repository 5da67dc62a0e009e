import cv2
import numpy as np
import pytest
from conftest import draw_nail

from blackswan.data.defects import Canvas, Scene, missing_part, poisson_blend, scratch, shrink, spot
from blackswan.data.synthesis import BRUSHES, Params, synthesize
from blackswan.seeds import generator

PATCH = Params(
    patches_min=1,
    patches_max=1,
    radius_min=0.12,
    radius_max=0.2,
    vertices_min=5,
    vertices_max=12,
    irregularity=0.3,
    noise_ratio=0.5,
    salt_ratio=0.5,
)


def noisy(image, seed=0, sigma=2):
    noise = generator(seed, "noise").normal(0, sigma, (*image.shape[:2], 1))
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


def nail(degrees=20):
    """A nail on a plain ground, with the noise of a camera, and where it is."""
    clean = draw_nail(degrees)
    return noisy(clean, degrees), (np.abs(clean.astype(int) - 200) > 8).any(axis=2)


def canvas(image, *, side=40, part=None, background=None):
    """All of an image, with a square in the middle as the polygon."""
    region = np.zeros(image.shape[:2], np.bool_)
    top, left = ((length - side) // 2 for length in region.shape)
    region[top : top + side, left : left + side] = True
    part = np.ones_like(region) if part is None else part
    return Canvas(image, region, part, background, min(region.shape))


def test_a_scene_tells_a_thing_from_its_background():
    image, truth = nail()
    scene = Scene.of(image)
    overlap = (scene.part & truth).sum() / (scene.part | truth).sum()
    assert overlap > 0.75
    assert np.abs(scene.background.astype(int) - 200).max() <= 2
    places = np.array([scene.place(generator(0, str(n))) for n in range(200)]).astype(int)
    assert cv2.dilate(truth.astype(np.uint8), np.ones((5, 5)))[places[:, 1], places[:, 0]].all()
    assert np.ptp(places[:, 1]) > 50


def test_a_scene_without_a_plain_background_is_all_part():
    noise = generator(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    for image in (noise, noise // 64 + 90, np.full((64, 80, 3), 7, np.uint8)):
        scene = Scene.of(image)
        assert scene.part is None
        places = np.array([scene.place(generator(0, str(n))) for n in range(200)])
        assert (places.min(axis=0) < 10).all()
        assert (places.max(axis=0) > [70, 54]).all()


def test_a_thing_is_told_in_a_large_image_as_in_a_small_one():
    image, truth = nail()
    large = cv2.resize(image, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    scene = Scene.of(large)
    assert scene.part.shape == (256, 256)
    place = scene.place(generator(0)) / 8
    assert cv2.dilate(truth.astype(np.uint8), np.ones((5, 5)))[int(place[1]), int(place[0])]


@pytest.mark.parametrize("name", BRUSHES)
def test_defects_lie_on_the_thing(name):
    for degrees in range(0, 180, 30):
        image, truth = nail(degrees)
        _, mask = synthesize(image, name, PATCH, generator(0, str(degrees)), nail(degrees + 75)[0])
        near = cv2.dilate(truth.astype(np.uint8), np.ones((7, 7))).view(np.bool_)
        assert (mask & near).any()
        if name != "poisson_blend":  # a foreign piece may stand out from the thing
            assert not (mask & ~near).any()


def test_noise_alone_is_nothing_foreign():
    plain = np.full((80, 80, 3), 128, np.uint8)
    for draw in range(10):
        lender = Scene.of(noisy(plain, seed=1))
        _, opacity = poisson_blend(canvas(noisy(plain)), lender, generator(0, str(draw)))
        assert not opacity.any()


def test_a_blend_has_the_pattern_of_the_other_image_and_the_level_of_this_one():
    plain = np.full((80, 80, 3), 160, np.uint8)
    stripes = np.full((80, 80, 3), 40, np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = 100
    colours, opacity = poisson_blend(canvas(plain), Scene.of(stripes), generator(0))
    covered = opacity > 0
    assert set(np.unique(opacity)) == {0, 255}
    assert not covered[:20].any()
    assert 0.1 < covered[20:60, 20:60].mean() < 0.95
    middle = colours[25:55, 25:55]
    assert middle.std(axis=1).mean() > 3 * middle.std(axis=0).mean()  # stripes stand upright
    assert middle.mean() > 130  # and are as light as what surrounds them


def test_a_blend_at_the_border_of_the_image_is_no_error():
    image = generator(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    other = Scene.of(generator(1).integers(0, 256, (33, 70, 3)).astype(np.uint8))
    for side in (1, 3, 6, 39, 40):
        for draw in range(4):
            colours, opacity = poisson_blend(
                canvas(image, side=side), other, generator(0, str(draw))
            )
            assert opacity.any() == (side > 6)
            assert not opacity[0].any()
            assert colours.shape == image.shape


def test_a_scratch_is_long_thin_and_all_lighter_or_all_darker():
    image = np.full((200, 200, 3), 120, np.uint8)
    signs = set()
    for draw in range(20):
        colours, opacity = scratch(canvas(image, side=60), Scene.of(image), generator(0, str(draw)))
        rows, columns = np.nonzero(opacity)
        length = np.hypot(np.ptp(rows), np.ptp(columns))
        assert 30 < length < 75
        assert len(rows) / length < 7  # pixels wide
        assert len(np.unique(opacity)) > 1  # antialiased
        signs |= set(np.unique(np.sign(colours[opacity > 0].astype(int) - 120)).tolist())
    assert signs == {-1, 1}


def test_what_is_white_is_scratched_dark_and_what_is_black_light():
    for level in (0, 255):
        image = np.full((100, 100, 3), level, np.uint8)
        for draw in range(10):
            colours, opacity = scratch(canvas(image), Scene.of(image), generator(0, str(draw)))
            assert opacity.any()
            assert (colours[opacity > 0] != level).all()


def test_a_spot_is_soft_and_tinted_where_the_image_is():
    tinted = []
    for grey in (True, False):
        image = np.full((100, 100, 3), 120, np.uint8)
        if not grey:
            image[..., 2] = 90
        for draw in range(10):
            colours, opacity = spot(canvas(image), Scene.of(image), generator(0, str(draw)))
            change = colours[opacity > 0].astype(int) - image[opacity > 0]
            tinted.append(bool((change != change[:, :1]).any()))
            assert opacity.max() > 60
            border = opacity[(opacity > 0) & (cv2.erode(opacity, np.ones((3, 3))) == 0)]
            assert border.mean() < 0.4 * opacity.max()
    assert tinted == [False] * 10 + [True] * 10


def test_where_a_part_is_missing_its_background_is_seen():
    image, truth = nail(0)
    scene = Scene.of(image)
    part = cv2.resize(scene.part.astype(np.uint8), image.shape[1::-1]).astype(np.bool_)
    board = canvas(image, side=30, part=part, background=scene.background)
    colours, opacity = missing_part(board, scene, generator(0))
    gone = opacity > 0
    assert not (gone & ~board.region).any()
    assert (gone & truth).sum() > 0.9 * (board.region & truth).sum()
    filled = colours[gone].astype(int)
    assert filled.mean() == pytest.approx(200, abs=3)
    assert 1 < filled.std() < 4  # the noise of the background, 2


def test_a_thing_that_fills_the_view_is_replaced_by_the_colour_of_the_background():
    image = np.full((40, 40, 3), 60, np.uint8)
    board = canvas(image, background=np.array([200, 190, 180], np.uint8))
    colours, opacity = missing_part(board, Scene.of(image), generator(0))
    assert (opacity[1:-1, 1:-1] > 0).all()
    assert set(map(tuple, colours[opacity > 0].tolist())) == {(200, 190, 180)}


def test_without_a_plain_background_what_surrounds_the_polygon_grows_over_it():
    image = np.full((80, 80, 3), 150, np.uint8)
    image[30:50, 30:50] = 20
    colours, opacity = missing_part(canvas(image), Scene.of(image), generator(0))
    assert (colours[opacity > 0] == 150).all()
    dark = (image == 20).all(axis=2)
    assert not (opacity > 0)[~dark].any()
    assert (opacity > 0)[dark].mean() > 0.95  # its corners are rounded


def test_shrinking_never_enlarges_nor_loses_a_side():
    image = np.zeros((1, 900, 3), np.uint8)
    assert shrink(image, 1.5) is image
    assert shrink(image, 0.1).shape == (1, 90, 3)
