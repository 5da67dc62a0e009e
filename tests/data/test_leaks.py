import re

import cv2
import numpy as np
import pytest

from blackswan.data.images import write_png
from blackswan.data.leaks import (
    Item,
    Params,
    _Cache,
    check,
    find_leaks,
    fingerprint,
    pixel_difference,
)
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
    return [(leak.first.path, leak.second.path) for leak in find_leaks(listed, params)]


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


@pytest.mark.parametrize(
    ("name", "value"), [("CHUNK", 5), ("WAITING", 3), ("CACHED", 60_000), ("NEAREST", 2)]
)
def test_every_pair_is_compared_beyond_one_block(images, monkeypatch, name, value):
    monkeypatch.setattr(f"blackswan.data.leaks.{name}", value)
    copies = [Item(image.path, "other") for image in images]
    pairs = set(found([*images, *copies]))
    assert pairs == {(image.path, image.path) for image in images}
    with pytest.raises(InputError) as caught:
        check([*images, *copies], NEAR)
    assert str(caught.value).count(" = ") == 5


def test_the_difference_is_exact(tmp_path):
    for number in range(2):
        write_png(tmp_path / f"{number}.png", scene(number))
    whole = pixel_difference(tmp_path / "0.png", tmp_path / "1.png")
    assert whole == np.abs(scene(0).astype(int) - scene(1)).mean()


def by_brute_force(listed, params):
    """Compare all pairs in full; return those that leak as sets of paths."""
    hashes = [fingerprint(item.path)[0] for item in listed]
    leaks = set()
    for n, first in enumerate(listed):
        for m in range(n):
            second = listed[m]
            if first.split == second.split or (first.clip and first.clip == second.clip):
                continue
            near = (hashes[n] ^ hashes[m]).bit_count() <= params.max_hash_distance
            difference = pixel_difference(first.path, second.path)
            if near and difference <= params.max_pixel_difference:
                leaks.add(frozenset([first.path, second.path]))
    return leaks


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("limit", [(6, 1.5), (6, 4.0), (0, 3.0), (24, 6.0)])
def test_what_is_found_is_what_comparing_all_in_full_finds(tmp_path, seed, limit):
    """Scenes under noise of differing strength, so that differences lie on both sides."""
    rng = np.random.default_rng(seed)
    listed = []
    for number in range(30):
        image = scene(rng.integers(3), (64, 72)[rng.integers(2)])
        noise = rng.uniform(0, 5) * rng.normal(0, 1, image.shape)
        path = tmp_path / f"{number:02d}.png"
        write_png(path, np.clip(np.rint(image + noise), 0, 255).astype(np.uint8))
        split = ("train", "validation", "test")[rng.integers(3)]
        listed.append(Item(path, split, ("", "a.mp4", "b.mp4")[rng.integers(3)]))
    params = Params(max_hash_distance=limit[0], max_pixel_difference=limit[1])
    leaks = list(find_leaks(listed, params))
    pairs = {frozenset([leak.first.path, leak.second.path]) for leak in leaks}
    assert pairs == by_brute_force(listed, params)
    assert len(leaks) == len(pairs) > 2
    assert [leak for leak in leaks if leak.first.split >= leak.second.split] == []
    for first, second, difference in leaks:
        assert difference == pixel_difference(first.path, second.path)


@pytest.mark.parametrize("defective", [(True, False), (False, True), (True, True)])
def test_a_part_before_and_after_its_defect_is_no_copy_but_a_copy_of_it_is(tmp_path, defective):
    first, second, encoded = (tmp_path / f"{name}.png" for name in "abc")
    image = scene(1)
    write_png(first, image)
    write_png(encoded, encoded_again(image, 90))
    image[40:48, 50:58] = cv2.add(image[40:48, 50:58], (30, 30, 30, 0))
    write_png(second, image)
    assert pixel_difference(first, second) <= NEAR.max_pixel_difference
    assert 0 < pixel_difference(first, encoded) <= NEAR.max_pixel_difference

    def listed(other, defective):
        pairs = zip((first, other), ("train", "test"), defective, strict=True)
        return [Item(path, split, defective=one) for path, split, one in pairs]

    check(listed(second, defective), NEAR)
    assert found(listed(second, (False, False))) == [(second, first)]
    assert found(listed(encoded, defective)) == [(encoded, first)]


def test_the_cache_reads_again_what_it_has_no_room_for(images, monkeypatch):
    reads = []

    def read(path):
        reads.append(path)
        return np.zeros((10, 10, 3), np.uint8)

    monkeypatch.setattr("blackswan.data.leaks.read_image", read)
    cache = _Cache(3 * 300)
    a, b, c, d = (image.path for image in images[:4])
    for path in (a, b, c, a, b, c, d, b, c, d, a):
        cache.read(path)
    assert reads == [a, b, c, d, a]


def test_one_clip_is_not_even_read(tmp_path):
    listed = [Item(tmp_path / f"{n}.png", split, "a.mp4") for n, split in enumerate("abc")]
    check(listed, NEAR)
    check([Item(tmp_path / "missing.png", "test")], NEAR)


def copies(folder, names, fields, noise=0.0):
    """Write images that are equal but for noise, and return them as items."""
    listed = []
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        added = noise * rng.normal(0, 1, (96, 96, 3))
        write_png(path, np.clip(np.rint(scene(0) + added), 0, 255).astype(np.uint8))
        listed.append(Item(path, ("train", "test")[number % 2], **fields(name)))
    return listed


def refused(listed, params=NEAR):
    with pytest.raises(InputError) as caught:
        check(listed, params)
    return str(caught.value)


def test_the_message_counts_the_pairs_and_gives_the_nearest_first(tmp_path):
    listed = copies(tmp_path, "abcd", lambda name: {}, noise=1.5)
    message = refused(listed)
    assert message.startswith("images that are nearly the same lie in different splits (pairs: 4)")
    differences = sorted(
        pixel_difference(listed[m].path, listed[n].path) for m in (0, 2) for n in (1, 3)
    )
    shown = [f"(difference {difference:.3g})" for difference in differences]
    assert [message.index(text) for text in shown] == sorted(map(message.index, shown))
    assert message.endswith(f"for the nearest pair differs by {differences[0]:.3g} grey levels")
    named = re.search(r"max_pixel_difference \(now 3\) to ([\d.]+)", message)[1]
    check(listed, Params(max_hash_distance=6, max_pixel_difference=float(named)))
    assert "(more than 5 pairs)" in refused(copies(tmp_path, "abcdefgh", lambda name: {}))


def test_no_limit_is_named_where_none_lets_equal_images_pass(tmp_path):
    assert "max_pixel_difference" not in refused(copies(tmp_path, "ab", lambda name: {}))


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        (lambda name: {"given": {"a": "train", "b": "test"}[name]},
         "Remove the copies from test or train of source.path"),
        (lambda name: {"given": "train"}, "Remove one of each pair: train of source.path holds it"),
        (lambda name: {"clip": f"{name}.mp4"}, "leave out b.mp4 or a.mp4, which show the same"),
        (lambda name: {"photo": name, "series": "*"}, "frames of one video, set split.sequ"),
    ],
)  # fmt: skip
def test_the_remedy_fits_the_case(tmp_path, fields, remedy):
    message = refused(copies(tmp_path, "ab", fields))
    assert remedy in message
    assert "group_pattern" not in message


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["part1_a", "part1_b", "part2_a", "part3_a"], r"(.+)[_-]"),
        (["1/left", "1/right", "2/left", "3/left"], r"(.+)/"),
        (["x/p1_top_a", "x/p1_side_b", "x/p2_top_a", "x/p3_top_a"], r"([^/_-]+)[_-][^/]*$"),
    ],
)
def test_a_pattern_is_proposed_that_fits_the_names(tmp_path, names, pattern):
    listed = copies(tmp_path, names[:2], lambda name: {"photo": name})
    for name in names[2:]:
        listed += [Item(listed[0].path, "train", photo=name)]
    assert f"set extract_frames.folder.group_pattern: '{pattern}'" in refused(listed)


@pytest.mark.parametrize("names", [["a", "b", "c"], ["x_a", "x_b", "x_c"], ["1_a", "2_a", "3_a"]])
def test_no_pattern_is_proposed_that_would_not_help(tmp_path, names):
    listed = copies(tmp_path, names[:2], lambda name: {"photo": name})
    listed += [Item(listed[0].path, "train", photo=names[2])]
    assert "group_pattern" not in refused(listed)


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
