import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq

from blackswan.data.dataset import Split
from blackswan.data.images import decode_image, decode_mask, read_image, read_mask, write_png
from blackswan.data.records import read_index

DATASET = "data/dataset"
SPLITS = ("train", "validation", "test")


def split(project, name):
    return Split(project.root / DATASET, name)


def test_shards_hold_every_labelled_image_once_and_in_order(finished):
    labels = read_index(finished.root / "data/labels.csv")
    for name in SPLITS:
        rows = list(split(finished, name))
        assert [row.path for row in rows] == [r.image for r in labels if r.split == name]
        assert [row.label for row in rows] == [
            ["normal", "anomalous"].index(r.label) for r in labels if r.split == name
        ]
    assert sorted(finished.outputs(DATASET)) == [
        f"{DATASET}/quarantine.csv",
        f"{DATASET}/test/test-00000-of-00002.parquet",
        f"{DATASET}/test/test-00001-of-00002.parquet",
        f"{DATASET}/train/train-00000-of-00002.parquet",
        f"{DATASET}/train/train-00001-of-00002.parquet",
        f"{DATASET}/validation/validation-00000-of-00001.parquet",
    ]
    sizes = [pq.ParquetFile(path).metadata.num_rows for path in split(finished, "train").paths]
    assert sizes == [20, 18]


def test_pixels_masks_and_facts_are_those_of_the_files(finished):
    records = {r.image: r for r in read_index(finished.root / "data/labels.csv")}
    for name in SPLITS:
        for row in split(finished, name):
            record, data = records[row.path], finished.root / "data"
            assert np.array_equal(decode_image(row.image), read_image(data / record.image))
            assert (row.mask is None) == (record.mask == "")
            if row.mask:
                mask = read_mask(data / record.mask, (32, 32))
                assert np.array_equal(decode_mask(row.mask), mask)
            assert (row.defect, row.group, row.timestamp_s) == (
                record.defect,
                record.group,
                record.timestamp_s,
            )
            assert (row.synthetic, row.augmented) == (record.label == "anomalous", False)


def test_twice_the_same_bytes(tiny_project):
    before = tiny_project.outputs()
    assert tiny_project.run("build_dataset") == ("data/dataset: train 38, validation 18, test 24\n")
    assert tiny_project.outputs() == before


def test_only_train_is_augmented(tiny_project):
    before = tiny_project.outputs(DATASET)
    tiny_project.set(build_dataset__augment__copies=2)
    assert tiny_project.run("build_dataset") == (
        "data/dataset: train 114, validation 18, test 24\n"
    )
    after = tiny_project.outputs(DATASET)
    for name in before:
        if "train" not in name:
            assert after[name] == before[name]
    train = split(tiny_project, "train")
    assert Counter(train.facts.augmented) == {True: 76, False: 38}
    assert len(train.normal_images) == 19
    groups = dict(zip(train.facts.path, train.facts.group, strict=True))
    changed = 0
    for row in train:
        if row.augmented:
            original = row.path[: row.path.index("-augmented-")] + ".png"
            assert row.group == groups[original]
            assert (row.mask is None) == (row.label == 0)
            assert row.mask is None or decode_mask(row.mask).any()
            changed += row.image != (tiny_project.root / "data" / original).read_bytes()
    assert changed > 50
    again = tiny_project.outputs(DATASET)
    tiny_project.run("build_dataset")
    assert tiny_project.outputs(DATASET) == again


def test_real_anomalies_are_not_synthetic(tiny_project, mvtec_tree):
    tiny_project.set(source__path=str(mvtec_tree))
    tiny_project.run_chain()
    facts = split(tiny_project, "test").facts
    assert set(facts.defect[facts.label == 1]) == {"scratch", "hole", "stain"}
    assert not facts.synthetic.any()
    assert facts.has_mask.tolist() == (facts.label == 1).tolist()
    assert facts.timestamp_s.isna().all()
    facts = split(tiny_project, "train").facts
    assert facts.synthetic.tolist() == (facts.label == 1).tolist()


def test_images_of_several_sizes_lie_on_one_canvas(tiny_project, mvtec_tree):
    root = tiny_project.root / "data/raw/parts"
    shutil.copytree(mvtec_tree, root)
    for path in root.rglob("000*.png"):  # the first of every folder, and their masks
        write_png(path, np.ascontiguousarray(read_image(path)[:, :24]))
    tiny_project.set(
        source__path="data/raw/parts", extract_frames__size=None, build_dataset__image_size=None
    )
    for stage in ("extract_frames", "synthesize_anomalies", "label"):
        tiny_project.run(stage)
    message = tiny_project.refuse("build_dataset")
    assert "differ in size; set build_dataset.image_size to a size, or to {within: [32, 32]}" in (
        message
    )
    tiny_project.set(build_dataset__image_size={"shorter_side": 48})
    assert "{within: [64, 48]}" in tiny_project.refuse("build_dataset")
    tiny_project.set(build_dataset__image_size={"within": [64, 64]})
    tiny_project.run("build_dataset")
    for row in split(tiny_project, "train"):
        shape = decode_image(row.image).shape[:2]
        assert shape in ((64, 64), (64, 48))
        assert row.mask is None or decode_mask(row.mask).shape == shape
    facts = split(tiny_project, "test").facts
    assert set(zip(facts.height, facts.width, strict=True)) == {(64, 64), (64, 48)}


def test_crop_and_size(tiny_project):
    tiny_project.set(build_dataset__image_size=16)
    tiny_project.run("build_dataset")
    row = split(tiny_project, "test")[0]
    assert decode_image(row.image).shape == (16, 16, 3)
    assert decode_mask(row.mask).shape == (16, 16)
    tiny_project.set(build_dataset__image_size=[48, 20])
    tiny_project.run("build_dataset")
    row = split(tiny_project, "test")[0]
    assert decode_image(row.image).shape == (48, 20, 3)
    assert decode_mask(row.mask).shape == (48, 20)
    tiny_project.set(build_dataset__crop=[0, 0, 4, 4])
    message = tiny_project.refuse("build_dataset")
    assert "build_dataset.crop" in message
    assert "anomalies/images/" in message
