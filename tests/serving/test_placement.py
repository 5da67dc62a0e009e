"""What lies where on the photo: the way back is that of the way there."""

import numpy as np
import pytest

from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.serving.placement import place, place_mask, to_photo


def steps(*pairs):
    return Preprocessing(steps=[Step(crop=crop, size=size) for crop, size in pairs])


@pytest.mark.parametrize(
    ("preprocessing", "shape"),
    [
        (steps(("none", None)), (40, 60)),
        (steps(("none", 16)), (32, 64)),
        (steps(("center_square", 20)), (40, 60)),
        (steps(((10, 4, 32, 24), None), ("center_square", [16, 20])), (40, 60)),
    ],
)
def test_a_mark_on_the_photo_is_found_again(preprocessing, shape):
    mark = np.zeros(shape, bool)
    mark[12:20, 24:32] = True
    seen = preprocessing.apply(mark, None, mask=True)
    matrix = to_photo(preprocessing, shape, None)
    rows, columns = np.nonzero(seen)
    middle = place(np.array([[columns.mean(), rows.mean()]]), matrix)[0]
    assert middle.tolist() == pytest.approx([27.5, 15.5], abs=2)
    back = place_mask(seen, matrix, shape)
    assert back.shape == shape
    assert back[mark].all()
    assert not back[:, :20].any()


def test_corners_of_a_scaled_photo():
    matrix = to_photo(steps(("none", 16)), (32, 64), None)
    assert place(np.array([[-0.5, -0.5], [15.5, 15.5]]), matrix).tolist() == [
        pytest.approx([-0.5, -0.5]), pytest.approx([63.5, 31.5]),
    ]  # fmt: skip


def test_a_pose_is_undone():
    turn = np.array([[0, 1, 0], [-1, 0, 39]], float)  # x, y -> y, 39 - x
    matrix = to_photo(steps(("none", None)), (40, 40), turn)
    assert place(np.array([[12, 34]]), matrix)[0].tolist() == pytest.approx([5, 12])
