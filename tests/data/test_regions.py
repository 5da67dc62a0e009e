"""Polygons of a camera: on the photo, on what a detector sees of it, and files that are none."""

import hashlib
import json

import numpy as np
import pytest

from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.data.regions import Ignored, Regions, of_run, read_all, read_regions
from blackswan.errors import InputError

LEFT = [[0, 0], [19, 0], [19, 39], [0, 39]]


def write(path, **cameras):
    path.write_text(json.dumps({"cameras": cameras}))
    return path


def camera(*polygons, width=80, height=40):
    return {"width": width, "height": height, "ignore": [*polygons]}


def test_a_polygon_covers_its_corners_and_scales_with_the_picture():
    regions = Regions(**camera(LEFT))
    mask = regions.mask((40, 80))
    assert mask[:, :20].all()
    assert not mask[:, 20:].any()
    [corners] = regions.polygons((80, 160))  # twice as fine: pixel 19 covers 38 and 39
    assert corners.tolist() == [[0.5, 0.5], [38.5, 0.5], [38.5, 78.5], [0.5, 78.5]]
    assert not regions.mask((20, 40))[:, 11:].any()


def test_what_a_detector_sees_of_it_is_cropped_and_scaled_alike():
    ignored = Ignored(camera="line1", sha256="0" * 64, regions=Regions(**camera(LEFT)))
    square = Preprocessing(steps=[Step(crop="center_square", size=20)])
    assert not ignored.seen(square).any()  # the crop begins at 20
    whole = Preprocessing(steps=[Step(crop="none", size=20)])
    seen = ignored.seen(whole)
    assert (seen.shape, np.flatnonzero(seen[0]).tolist()) == ((20, 20), [0, 1, 2, 3, 4])
    assert np.array_equal(ignored.seen(whole, (400, 800)), seen)
    upright = Preprocessing(steps=[], pose="upright")
    with pytest.raises(InputError, match="lays each image another way; set pose: none"):
        ignored.seen(upright)
    turn = np.array([[1.0, 0, 10], [0, 1, 0]])
    assert np.flatnonzero(ignored.seen(upright, (40, 80), turn)[0]).tolist() == [*range(10, 30)]


def test_a_camera_is_read_with_the_hash_of_its_file(tmp_path):
    path = write(tmp_path / "regions.json", line1=camera(LEFT), line2=camera())
    found = read_regions(path, "line1")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.camera, found.regions.width, len(found.regions.ignore)) == ("line1", 80, 1)
    assert read_regions(path, "line2").regions.ignore == []
    assert of_run(path, "") is None
    with pytest.raises(InputError, match="has no camera x, but line1, line2; name one of them by"):
        read_regions(path, "x")
    with pytest.raises(InputError, match="name one of them by ignore.camera, or add it"):
        of_run(path, "x")


def test_a_folder_of_files_is_read_whole(tmp_path):
    with pytest.raises(InputError, match="holds no file of regions; add one such as line1.json"):
        read_all(tmp_path)
    write(tmp_path / "a.json", line1=camera(LEFT))
    write(tmp_path / "b.json", line2=camera(LEFT))
    assert sorted(read_all(tmp_path)) == ["line1", "line2"]
    write(tmp_path / "c.json", line1=camera(LEFT))
    with pytest.raises(InputError, match="names the camera line1 twice; remove one"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ignore": [[[0, 0], [1, 1]]]}, "ignore.0"),
        ({"width": 0}, "cameras.line1.width = 0"),
        ({"colour": 1}, "cameras.line1.colour is not a known key; remove it"),
        ({"heigth": 1}, "cameras.line1.heigth is not a known key; did you mean height?"),
    ],
)
def test_what_is_no_file_of_regions_is_named(tmp_path, changed, said):
    path = write(tmp_path / "regions.json", line1=camera(LEFT) | changed)
    with pytest.raises(InputError, match=said):
        read_all(path)
