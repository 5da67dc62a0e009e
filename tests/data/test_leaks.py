import cv2
import numpy as np
import pytest

from blackswan.data.images import write_png
from blackswan.data.leaks import Params, check, find_leaks, fingerprint, pixel_difference
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
        listed.append((path, ("train", "validation", "test")[number % 3]))
    return listed


def encoded_again(image, quality):
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def test_different_images_pass(images):
    check(images, NEAR)
    assert list(find_leaks(images, NEAR)) == []


@pytest.mark.parametrize("quality", [100, 90, 70])
def test_an_encoded_copy_in_another_split_is_found(images, tmp_path, quality):
    copy = tmp_path / "copy.png"
    write_png(copy, encoded_again(scene(3), quality))  # image 3 is of train
    assert list(find_leaks([*images, (copy, "test")], NEAR)) == [(copy, tmp_path / "03.png")]
    with pytest.raises(InputError) as caught:
        check([*images, (copy, "test")], NEAR)
    assert f"{copy} = {tmp_path / '03.png'}" in str(caught.value)
    assert "split.guard_seconds" in str(caught.value)
    check([*images, (copy, "train")], NEAR)


def test_both_conditions_must_hold(images, tmp_path):
    brighter = tmp_path / "brighter.png"
    write_png(brighter, np.clip(scene(3).astype(int) + 10, 0, 255).astype(np.uint8))
    listed = [*images, (brighter, "test")]
    assert list(find_leaks(listed, NEAR)) == []  # equal hashes, pixels 10 apart
    far = Params(max_hash_distance=6, max_pixel_difference=10.5)
    assert list(find_leaks(listed, far)) == [(brighter, tmp_path / "03.png")]


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("step", [3, 12])
def test_a_change_of_one_colour_is_measured_over_all_three(tmp_path, channel, step):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    image = scene(1)
    write_png(first, image)
    image[..., channel] += step
    write_png(second, image)
    assert pixel_difference(first, second) == pytest.approx(step / 3)
    listed = [(first, "train"), (second, "test")]
    above = Params(max_hash_distance=10, max_pixel_difference=step / 3 + 0.01)
    below = Params(max_hash_distance=10, max_pixel_difference=step / 3 - 0.01)
    assert list(find_leaks(listed, above)) == [(second, first)]
    assert list(find_leaks(listed, below)) == []


def test_every_pair_is_compared_beyond_one_block(images, monkeypatch):
    monkeypatch.setattr("blackswan.data.leaks.BLOCK", 5)
    copies = [(path, "other") for path, _ in images]
    pairs = set(find_leaks([*images, *copies], NEAR))
    assert pairs == {(path, path) for path, _ in images}
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
    listed = [(tmp_path / "a.png", "train"), (tmp_path / "b.png", "test")]
    assert pixel_difference(*(path for path, _ in listed)) == float("inf")
    assert list(find_leaks(listed, NEAR)) == []


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
