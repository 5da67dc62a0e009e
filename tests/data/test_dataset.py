import io
import tracemalloc

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from blackswan.data.dataset import LABELS, ROWS_PER_GROUP, Row, Split, mask_of, pq, write_shards
from blackswan.data.images import decode_image, encode_png
from blackswan.errors import InputError

COUNT = 45


def make_row(number):
    rng = np.random.default_rng(number)
    anomalous = number % 3 == 1
    mask = np.zeros((20, 24), bool)
    mask[2:6, number % 20 : number % 20 + 4] = True
    return Row(
        path=f"frames/images/{number:03d}.png",
        image=encode_png(rng.integers(0, 256, (20, 24, 3)).astype(np.uint8)),
        mask=encode_png(mask) if anomalous and number % 2 else None,
        label=int(anomalous),
        defect="scratch" if anomalous else "",
        synthetic=anomalous,
        augmented=number % 5 == 0,
        group=f"clip.mp4/{number // 4:06d}",
        timestamp_s=None if number % 7 == 0 else number / 24,
    )


ROWS = [make_row(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset")
    write_shards(path, "train", ROWS, rows_per_shard=20)
    return path


def test_shards_and_row_groups(folder):
    files = sorted((folder / "train").iterdir())
    assert [path.name for path in files] == [
        f"train-{number:05d}-of-00003.parquet" for number in range(3)
    ]
    sizes = [
        [pq.ParquetFile(path).metadata.row_group(g).num_rows
         for g in range(pq.ParquetFile(path).num_row_groups)]
        for path in files
    ]  # fmt: skip
    assert sizes == [[ROWS_PER_GROUP, 4], [ROWS_PER_GROUP, 4], [5]]


def test_a_row_group_of_large_images_ends_early(tmp_path, monkeypatch):
    monkeypatch.setattr("blackswan.data.dataset.GROUP_BYTES", 2 * len(ROWS[0].image))
    write_shards(tmp_path, "train", ROWS, rows_per_shard=20)
    file = pq.ParquetFile(tmp_path / "train/train-00002-of-00003.parquet")
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [2, 2, 1]
    split = Split(tmp_path, "train")
    assert [split[number].path for number in range(COUNT)] == [row.path for row in ROWS]


def test_rows_are_read_as_they_were_written_in_any_order(folder):
    split = Split(folder, "train")
    assert len(split) == COUNT
    assert list(split) == ROWS
    for index in np.random.default_rng(0).permutation(COUNT):
        assert split[index] == ROWS[index]
    for index in (-1, COUNT):
        with pytest.raises(IndexError):
            split[index]


def test_twice_the_same_bytes(folder, tmp_path):
    write_shards(tmp_path, "train", iter(ROWS), rows_per_shard=20)
    for path in (folder / "train").iterdir():
        assert (tmp_path / "train" / path.name).read_bytes() == path.read_bytes()


def test_facts_and_normal_images(folder):
    split = Split(folder, "train")
    facts = split.facts
    assert facts.path.tolist() == [row.path for row in ROWS]
    assert facts.has_mask.tolist() == [row.mask is not None for row in ROWS]
    assert facts.label.tolist() == [row.label for row in ROWS]
    assert facts.timestamp_s.isna().tolist() == [row.timestamp_s is None for row in ROWS]
    chosen = [row for row in ROWS if row.label == 0 and not row.augmented]
    normal = split.normal_images
    assert len(normal) == len(chosen)
    assert normal.paths == [row.path for row in chosen]
    for _ in range(2):  # again and again
        for image, row in zip(normal, chosen, strict=True):
            assert np.array_equal(image, decode_image(row.image))


def test_images_of_several_splits_are_taken_by_their_positions(folder):
    split = Split(folder, "train")
    normal = split.normal_images
    both = normal.take([3, 1]) + Split(folder, "train").normal_images
    chosen = [row for row in ROWS if row.label == 0 and not row.augmented]
    expected = [chosen[3], chosen[1], *chosen]
    assert both.paths == [row.path for row in expected]
    assert both.facts.group.tolist() == [row.group for row in expected]
    for image, row in zip(both, expected, strict=True):
        assert np.array_equal(image, decode_image(row.image))
    assert len(both.take([])) == 0


def test_masks(folder):
    normal, masked, unknown = ROWS[0], ROWS[1], ROWS[4]
    assert mask_of(normal, (20, 24)).sum() == 0
    mask = mask_of(masked, (20, 24))
    assert (mask.dtype, mask.sum()) == (np.bool_, 16)
    assert (unknown.label, mask_of(unknown, (20, 24))) == (1, None)


def test_datasets_reads_images_masks_and_labels(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_CACHE_HOME", str(tmp_path))
    loaded = datasets.load_dataset(
        "parquet",
        data_files={"train": str(folder / "train/train-*.parquet")},
        cache_dir=str(tmp_path / "cache"),
    )["train"]
    assert loaded.features["label"].names == LABELS
    assert isinstance(loaded.features["image"], datasets.Image)
    assert isinstance(loaded.features["mask"], datasets.Image)
    for item, row in zip(loaded, ROWS, strict=True):
        assert np.array_equal(np.asarray(item["image"]), decode_image(row.image))
        assert (item["mask"] is None) == (row.mask is None)
        assert (item["label"], item["defect"], item["group"]) == (row.label, row.defect, row.group)
        assert item["timestamp_s"] == row.timestamp_s
    assert np.array_equal(np.asarray(loaded[1]["mask"]) > 0, mask_of(ROWS[1], (20, 24)))


def test_pandas_reads_them(folder):
    table = pd.read_parquet(folder / "train/train-00000-of-00003.parquet")
    image = Image.open(io.BytesIO(table.image[3]["bytes"]))
    assert np.array_equal(np.asarray(image), decode_image(ROWS[3].image))
    assert table["mask"][0] is None
    assert table["mask"][1]["path"] == "001-mask.png"
    assert table.label.value_counts().to_dict() == {0: 13, 1: 7}


def test_duckdb_reads_them(folder):
    found = duckdb.sql(
        f"select label, count(*), count(mask.bytes), min(image.path) "
        f"from '{folder}/train/train-*.parquet' group by label order by label"
    ).fetchall()
    assert found == [
        (0, 30, 0, "frames/images/000.png"),
        (1, 15, 8, "frames/images/001.png"),
    ]
    ((data,),) = duckdb.sql(
        f"select image.bytes from '{folder}/train/*.parquet' where image.path like '%/044.png'"
    ).fetchall()
    assert data == ROWS[44].image


def test_a_split_that_is_not_there_is_told(folder):
    with pytest.raises(InputError, match="has no test shard; run `dvc repro build_dataset`"):
        Split(folder, "test")


def test_writing_holds_one_row_group_at_a_time(tmp_path):
    size = 100_000

    def rows():
        for number in range(120):
            yield Row(f"{number}.png", bytes([number]) * size, None, 0, "", False, False, "", None)

    tracemalloc.start()
    write_shards(tmp_path, "train", rows(), rows_per_shard=60)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * ROWS_PER_GROUP * size
    assert Split(tmp_path, "train")[77].image == bytes([77]) * size
