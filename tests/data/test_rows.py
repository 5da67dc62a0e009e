from pathlib import Path

import numpy as np
import pytest

from blackswan.data.augmentation import Affine, Rotation
from blackswan.data.augmentation import Params as Augment
from blackswan.data.images import decode_image, write_png
from blackswan.data.records import Frame
from blackswan.data.rows import File, Params, build_rows, check_one_size
from blackswan.errors import InputError

AUGMENT = Augment(
    copies=1, horizontal_flip_probability=1, vertical_flip_probability=0,
    rotation=Rotation(probability=0, max_degrees=0),
    affine=Affine(probability=0, max_shift=0, max_zoom=0, max_shear_degrees=0),
)  # fmt: skip
PARAMS = Params(
    seed=0, engine="local", images=None, max_failed_share=0, crop=[0, 0, 12, 16], image_size=16,
    rows_per_shard=5, augment=AUGMENT,
)  # fmt: skip
RECORD = Frame("anomalies/images/x.png", "y.png", None, "g", "train", "anomalous", "spot", "m.png")


@pytest.fixture
def files(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    marks = np.zeros((16, 20), bool)
    marks[2:5, 3:6] = True
    write_png(tmp_path / "x.png", pixels)
    write_png(tmp_path / "m.png", marks)
    return File(str(tmp_path / "x.png")), File(str(tmp_path / "m.png"))


def test_rows_of_bytes_are_those_of_files(files):
    rows = build_rows(RECORD, *files, PARAMS)
    read = [File("abfss://x", Path(file.name).read_bytes()) for file in files]
    assert build_rows(RECORD, *read, PARAMS) == rows
    assert [row.path for row in rows] == [
        "anomalies/images/x.png", "anomalies/images/x-augmented-1.png",
    ]  # fmt: skip
    assert [row.augmented for row in rows] == [False, True]
    assert all(row.synthetic for row in rows)
    assert np.array_equal(decode_image(rows[1].image), decode_image(rows[0].image)[:, ::-1])
    assert len(rows) == PARAMS.versions("train") == 2
    assert PARAMS.versions("test") == 1


def test_what_is_at_fault_has_the_name_it_was_given(files):
    image, mask = files
    with pytest.raises(InputError, match=r"^abfss://a/b.png is empty, corrupt"):
        build_rows(RECORD, File("abfss://a/b.png", b"x"), mask, PARAMS)
    with pytest.raises(InputError, match=r"^abfss://a/m.png is empty, corrupt"):
        build_rows(RECORD, image, File("abfss://a/m.png", b"x"), PARAMS)
    with pytest.raises(InputError, match="does not exist"):
        build_rows(RECORD, File("nowhere.png"), None, PARAMS)


def test_one_size_is_asked_for():
    check_one_size([((3, 4), "a"), ((3, 4), "b")])
    with pytest.raises(InputError, match=r"b and c differ in size.*within: \[5, 4\]"):
        check_one_size([((3, 4), "a"), ((5, 2), "c"), ((3, 4), "b")])


def test_a_url_is_for_spark():
    values = PARAMS.model_dump() | {"images": "abfss://a"}
    with pytest.raises(ValueError, match="images is read by engine: spark alone"):
        Params.model_validate(values)
    assert Params.model_validate(values | {"engine": "spark"}).images == "abfss://a"
