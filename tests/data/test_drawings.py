import json

import cv2
import numpy as np
import pytest

from blackswan.data.drawings import Colours, Polygons, RunLengths, is_empty, read_drawing
from blackswan.errors import InputError

SQUARE = np.zeros((10, 12), bool)
SQUARE[2:5, 3:8] = True


def write(path, found):
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


def labelme(*shapes, height=10, width=12):
    return {"shapes": list(shapes), "imageHeight": height, "imageWidth": width}


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", [[3, 2], [7, 2], [7, 4], [3, 4]]),
        ("rectangle", [[3, 2], [7, 4]]),
        ("rectangle", [[7, 4], [3, 2]]),
    ],
)
def test_labelme(tmp_path, kind, points):
    path = write(tmp_path / "a.json", labelme({"shape_type": kind, "points": points}))
    assert np.array_equal(read_drawing(path)((10, 12)), SQUARE)
    assert not is_empty(path)
    assert is_empty(write(tmp_path / "b.json", labelme()))


def test_a_circle_of_labelme_covers_its_area(tmp_path):
    shape = {"shape_type": "circle", "points": [[50, 60], [50, 80]]}
    path = write(tmp_path / "a.json", labelme(shape, height=120, width=100))
    assert read_drawing(path)((120, 100)).sum() == pytest.approx(np.pi * 20**2, rel=0.06)


@pytest.mark.parametrize("text", ["3 2 7 4 1\n", "3,2,7,4\n\n", "3.2 1.9 7 4 defect\n"])
def test_boxes_include_their_last_pixels(tmp_path, text):
    assert np.array_equal(read_drawing(write(tmp_path / "a.txt", text))((10, 12)), SQUARE)


def test_runs_of_coco_go_down_the_columns():
    runs = RunLengths("a", (3, 2, 4, 1, 2), (4, 3))
    expected = [[0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert runs((4, 3)).astype(int).tolist() == expected
    with pytest.raises(InputError, match="runs of 12 pixels for an image of 12 x 10"):
        RunLengths("a", (3, 2, 4, 1, 2), (10, 12))((10, 12))


def test_colours_take_the_nearest_of_their_meanings(tmp_path):
    picture = np.full((10, 12, 3), 255, np.uint8)
    picture[SQUARE] = (35, 164, 54)
    picture[4, 3:8] = (100, 190, 110)  # an antialiased edge
    picture[0] = (0, 0, 255)  # another class, which is normal
    cv2.imwrite(str(tmp_path / "a.png"), picture[:, :, ::-1])
    found = Colours(tmp_path / "a.png", ((35, 164, 54),), ((255, 255, 255), (0, 0, 255)))
    assert np.array_equal(found((10, 12)), SQUARE)
    with pytest.raises(InputError, match="is for an image of 12 x 10 pixels, its image has 6 x 5"):
        found((5, 6))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", "[1]", "is no LabelMe file"),
        ("a.json", json.dumps(labelme({"shape_type": "line", "points": [[0, 0]]})), "type line"),
        ("a.txt", "1 2 3\n", "holds no boxes"),
        ("a.txt", "one two three four\n", "holds no boxes"),
        ("a.txt", "9 2 3 4\n", "holds no boxes"),
    ],
)
def test_what_is_no_drawing_is_refused(tmp_path, name, text, said):
    with pytest.raises(InputError, match=said):
        read_drawing(write(tmp_path / name, text))


def test_a_drawing_for_another_image_is_refused():
    with pytest.raises(InputError, match="annotate the image as it is now"):
        Polygons("a.json", (), (10, 12))((12, 10))


@pytest.mark.parametrize("points", [[], [[float("nan"), 1], [2, 3]], [[1e12, 1], [2, 3]]])
def test_corners_that_are_no_pixels_are_refused(points):
    with pytest.raises(InputError, match=r"a\.json has an outline without corners"):
        Polygons("a.json", (points,))((10, 12))


def test_negative_runs_are_refused():
    with pytest.raises(InputError, match="runs of 12 pixels"):
        RunLengths("a", (13, -1), (4, 3))((4, 3))
