"""Images out of tables: data sets that hold them, tables that name them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blackswan.data.dataset import Row, write_shards
from blackswan.data.images import encode_png, write_png
from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.data.sources.table import iterate_rows, list_tables, preprocessing_of
from blackswan.errors import InputError

STEPS = Preprocessing(steps=[Step(crop="none", size=16)])


def draw(number):
    return np.full((20, 20, 3), 10 * number, np.uint8)


def read(files):
    return [
        (item.frame.image, item.frame.timestamp_s, int(item.read()[0][0, 0, 0]))
        for item in iterate_rows(files, 16)
    ]


def test_a_data_set_is_read_in_its_order(tmp_path):
    rows = [
        Row(f"a/{number}.png", encode_png(draw(number)), None, 0, "", False, False, "g", number / 2)
        for number in range(20)
    ]
    write_shards(tmp_path, "test", rows, rows_per_shard=8, preprocessing=STEPS)
    files = list_tables(tmp_path)
    assert [file.name for file in files] == [f"test-0000{n}-of-00003.parquet" for n in range(3)]
    assert read(files) == [(f"a/{n}.png", n / 2, 10 * n) for n in range(20)]
    assert preprocessing_of(files) == STEPS


def test_bytes_alone_are_named_by_their_rows(tmp_path):
    table = pa.table({"image": [encode_png(draw(number)) for number in range(3)], "label": [0] * 3})
    pq.write_table(table, tmp_path / "parts.parquet")
    files = list_tables(tmp_path / "parts.parquet")
    assert read(files) == [(f"parts/00000{n}", None, 10 * n) for n in range(3)]
    assert preprocessing_of(files) is None


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_paths_are_relative_to_their_table(tmp_path, suffix):
    for number in range(3):
        write_png(tmp_path / f"photos/{number}.png", draw(number))
    table = pd.DataFrame({"path": [f"photos/{n}.png" for n in (2, 0, 1)], "batch": ["a"] * 3})
    table.to_csv(tmp_path / "list.csv", index=False)
    table.to_parquet(tmp_path / "list.parquet")
    files = list_tables(tmp_path / f"list.{suffix}")
    assert read(files) == [(f"photos/{n}.png", None, 10 * n) for n in (2, 0, 1)]


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        (
            "a.parquet",
            lambda path: pd.DataFrame({"picture": ["a"], "id": [1]}).to_parquet(path),
            "has no column image .* and no column path, but picture, id; name one",
        ),
        (
            "a.csv",
            lambda path: path.write_text("file,label\na.png,0\n"),
            "has no column image .* and no column path, but file, label; name one",
        ),
        ("a.parquet", lambda path: path.write_bytes(b"no table"), "is no Parquet file"),
        ("a.csv", lambda path: path.write_text("path,b\na.png\nb.png,1,2\n"), "cannot be read"),
        (
            "a.parquet",
            lambda path: pd.DataFrame({"path": ["a.png", None]}).to_parquet(path),
            "row 1 of .* holds and names no image; remove the row",
        ),
    ],
)
def test_other_tables_are_refused(tmp_path, name, write, said):
    write(tmp_path / name)
    write_png(tmp_path / "a.png", draw(1))
    with pytest.raises(InputError, match=said):
        read(list_tables(tmp_path / name))


def test_data_sets_that_were_not_prepared_alike_are_not_mixed(tmp_path):
    row = Row("a.png", encode_png(draw(1)), None, 0, "", False, False, "g", None)
    write_shards(tmp_path, "one", [row], 8, STEPS)
    write_shards(tmp_path, "two", [row], 8, Preprocessing(steps=[]))
    with pytest.raises(InputError, match="were not prepared alike; name one data set"):
        preprocessing_of(list_tables(tmp_path))
