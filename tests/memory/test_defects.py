"""Defects have the same ids wherever they come from, and survive Parquet."""

import numpy as np
import pytest
from memory_drawings import draw

from blackswan.data.images import decode_image
from blackswan.errors import InputError
from blackswan.memory.defects import (
    Origin,
    count_defects,
    describe,
    identity,
    read_defects,
    read_origin,
    write_defects,
)

ORIGIN = Origin(embedder="e", detector="padim", detector_hash="1.dir")


def test_ids_are_of_pixels_and_box():
    image = np.zeros((4, 5, 3), np.uint8)
    assert identity(image, (0, 1, 2, 3)) == "2485893f-c205-5512-ac1d-52aef2160696"
    assert identity(image.copy(), (0, 1, 2, 3)) == identity(image, (0, 1, 2, 3))
    others = [identity(image, (0, 1, 2, 2)), identity(image + 1, (0, 1, 2, 3)),
              identity(image.reshape(5, 4, 3), (0, 1, 2, 3))]  # fmt: skip
    assert len({*others, identity(image, (0, 1, 2, 3))}) == 4


def test_what_is_written_is_read(tmp_path, defects):
    path = tmp_path / "defects.parquet"
    assert write_defects(path, iter(defects), ORIGIN) == len(defects) == count_defects(path)
    assert read_origin(path) == ORIGIN
    [read] = read_defects(path)
    assert [defect.id for defect in read] == [defect.id for defect in defects]
    assert read[3].embedding.tobytes() == defects[3].embedding.tobytes()
    assert (read[3].type, read[3].source, read[3].group) == ("scratch", "line1", "scratch3.png")
    again = tmp_path / "again.parquet"
    write_defects(again, read, ORIGIN)
    assert again.read_bytes() == path.read_bytes()


def test_many_are_read_in_parts(tmp_path, defects):
    write_defects(tmp_path / "many.parquet", defects * 20, ORIGIN)
    assert [len(part) for part in read_defects(tmp_path / "many.parquet")] == [256, 64]


def test_a_crop_is_small_enough_to_look_at(embedder):
    image, region = draw("hole", 0)
    defect = describe(embedder, np.kron(image, np.ones((8, 8, 1), np.uint8)), region,
                      type=" hole ", name="a.png", date="2026-11-30")  # fmt: skip
    assert (defect.type, defect.date, defect.group) == ("hole", "2026-11-30", "a.png")
    assert max(decode_image(defect.crop).shape) <= 128


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"type": " "}, "the defect of a.png has no type; name one"),
        ({"type": "hole", "date": "30.11.26"}, "date '30.11.26' is no date; write year, month"),
    ],
)
def test_a_defect_without_a_type_or_with_a_wrong_date(embedder, facts, said):
    with pytest.raises(InputError, match=said):
        describe(embedder, *draw("hole", 0), name="a.png", **facts)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no Parquet PAR1"])
def test_a_file_of_something_else_is_named(tmp_path, content):
    path = tmp_path / "defects.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"defects.parquet is no file of defects .*embed_defects"):
        read_origin(path)
    with pytest.raises(InputError, match="defects.parquet cannot be read"):
        list(read_defects(path))
