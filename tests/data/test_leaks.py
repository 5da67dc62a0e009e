import cv2
import numpy as np
import pytest

from blackswan.data.images import write_png
from blackswan.data.leaks import Item, Params, check, find_leaks, fingerprint, pixel_difference
from blackswan.errors import InputError

NEAR = Params(max_hash_distance=6, max_pixel_difference=3.0)


def scene(seed, size=96):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (size, size, 3)), (0, 0), 5)
    return cv2.normalize(noise, None, 20, 230, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture
def images(tmp_path):
    """Twelve different images, in turn in the three splits."""
    listed = []
    for number in range(12):
        path = tmp_path / f"{number:02d}.png"
        write_png(path, scene(number))
        listed.append(Item(path, ("train", "validation", "test")[number % 3]))
    return listed


def found(listed, params=NEAR):
    return [(first.path, second.path) for first, second in find_leaks(listed, params)]


def encoded_again(image, quality):
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def test_different_images_pass(images):
    check(images, NEAR)
    assert found(images) == []


@pytest.mark.parametrize("quality", [100, 90, 70])
def test_an_encoded_copy_in_another_split_is_found(images, tmp_path, quality):
    copy = tmp_path / "copy.png"
    write_png(copy, encoded_again(scene(3), quality))  # image 3 is of train
    assert found([*images, Item(copy, "test")]) == [(copy, tmp_path / "03.png")]
    with pytest.raises(InputError) as caught:
        check([*images, Item(copy, "test")], NEAR)
    assert f"{copy} = {tmp_path / '03.png'}" in str(caught.value)
    assert "Remove the copies" in str(caught.value)
    check([*images, Item(copy, "train")], NEAR)


def test_both_conditions_must_hold(images, tmp_path):
    brighter = tmp_path / "brighter.png"
    write_png(brighter, np.clip(scene(3).astype(int) + 10, 0, 255).astype(np.uint8))
    listed = [*images, Item(brighter, "test")]
    assert found(listed) == []  # equal hashes, pixels 10 apart
    far = Params(max_hash_distance=6, max_pixel_difference=10.5)
    assert found(listed, far) == [(brighter, tmp_path / "03.png")]


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("step", [3, 12])
def test_a_change_of_one_colour_is_measured_over_all_three(tmp_path, channel, step):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    image = scene(1)
    write_png(first, image)
    image[..., channel] += step
    write_png(second, image)
    assert pixel_difference(first, second) == pytest.approx(step / 3)
    listed = [Item(first, "train"), Item(second, "test")]
    above = Params(max_hash_distance=10, max_pixel_difference=step / 3 + 0.01)
    below = Params(max_hash_distance=10, max_pixel_difference=step / 3 - 0.01)
    assert found(listed, above) == [(second, first)]
    assert found(listed, below) == []


def test_every_pair_is_compared_beyond_one_block(images, monkeypatch):
    monkeypatch.setattr("blackswan.data.leaks.BLOCK", 5)
    copies = [Item(image.path, "other") for image in images]
    pairs = set(found([*images, *copies]))
    assert pairs == {(image.path, image.path) for image in images}
    with pytest.raises(InputError) as caught:
        check([*images, *copies], NEAR)
    assert str(caught.value).count(" = ") == 5


def test_large_images_are_compared_in_strips(tmp_path, monkeypatch):
    for number in range(2):
        write_png(tmp_path / f"{number}.png", scene(number))
    whole = pixel_difference(tmp_path / "0.png", tmp_path / "1.png")
    assert whole == np.abs(scene(0).astype(int) - scene(1)).mean()
    monkeypatch.setattr("blackswan.data.leaks.ROWS", 7)
    assert pixel_difference(tmp_path / "0.png", tmp_path / "1.png") == whole


def test_sizes_that_differ_are_no_copies(tmp_path):
    for name, size in (("a", 96), ("b", 64)):
        write_png(tmp_path / f"{name}.png", cv2.resize(scene(0), (size, size)))
    listed = [Item(tmp_path / "a.png", "train"), Item(tmp_path / "b.png", "test")]
    assert pixel_difference(*(item.path for item in listed)) == float("inf")
    assert found(listed) == []


def test_the_hash_survives_encoding_and_scaling_and_tells_scenes_apart(tmp_path):
    def hashed(name, image):
        write_png(tmp_path / name, image)
        return fingerprint(tmp_path / name)[0]

    def distance(a, b):
        return (a ^ b).bit_count()

    original = hashed("a.png", scene(0))
    assert distance(original, hashed("b.png", encoded_again(scene(0), 60))) <= 4
    assert distance(original, hashed("c.png", cv2.resize(scene(0), (160, 160)))) <= 4
    others = [distance(original, hashed("d.png", scene(seed))) for seed in range(1, 20)]
    assert min(others) > 12


def test_a_camera_that_stands_still_passes_but_two_equal_clips_do_not(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path in paths:
        write_png(path, scene(0))
    splits = ("train", "validation", "test", "test")
    check([Item(path, split, "a.mp4") for path, split in zip(paths, splits, strict=True)], NEAR)
    two = [Item(paths[0], "train", "a.mp4"), Item(paths[1], "test", "b.mp4")]
    with pytest.raises(InputError, match=r"leave out b\.mp4 or a\.mp4, which show the same"):
        check(two, NEAR)


def test_a_sample_decides_what_lies_well_beyond_the_limit(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    listed = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        noise = rng.normal(0, 4, (96, 96, 3))
        write_png(path, np.clip(scene(0) + noise, 0, 255).astype(np.uint8))
        listed.append(Item(path, ("train", "test")[number % 2]))
    monkeypatch.setattr("blackswan.data.leaks.pixel_difference", None)  # a call would raise
    assert found(listed) == []
