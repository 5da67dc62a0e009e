"""The dataset by Spark is the dataset of the local engine, byte for byte."""

import io
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import SHARED

from blackswan.data.images import read_image, write_png
from blackswan.data.records import read_index

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark"), pytest.mark.timeout(300)]

DATASET = "data/dataset"


@pytest.mark.parametrize("partitions", [1, 2, 7])
def test_the_bytes_are_those_of_the_local_engine(spark, tiny_project, partitions):
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    tiny_project.set(build_dataset__augment__copies=2)
    printed = tiny_project.run("build_dataset")
    local = tiny_project.outputs(DATASET)
    tiny_project.set(build_dataset__engine="spark")
    assert tiny_project.run("build_dataset") == printed
    assert tiny_project.outputs(DATASET) == local


def test_photos_of_several_sizes_with_masks(spark, tiny_project, mvtec_tree):
    spark.conf.set("spark.sql.shuffle.partitions", 3)
    root = tiny_project.root / "data/raw/_parts [1]"
    shutil.copytree(mvtec_tree, root)
    for path in root.rglob("000*.png"):  # the first of every folder, and their masks
        write_png(path, np.ascontiguousarray(read_image(path)[:, :24]))
    tiny_project.set(
        source__path=str(root), extract_frames__size=None, build_dataset__image_size=None
    )
    for stage in ("extract_frames", "synthesize_anomalies", "label"):
        tiny_project.run(stage)
    message = tiny_project.refuse("build_dataset")
    tiny_project.set(build_dataset__engine="spark")
    assert tiny_project.refuse("build_dataset") == message
    tiny_project.set(build_dataset__image_size={"within": [40, 40]})
    printed = tiny_project.run("build_dataset")
    by_spark = tiny_project.outputs(DATASET)
    tiny_project.set(build_dataset__engine="local")
    assert tiny_project.run("build_dataset") == printed
    assert tiny_project.outputs(DATASET) == by_spark


def spoil(project):
    """Break two images and take one away; return the paths, as the label table has them."""
    labels = [record for record in read_index(project.root / "data/labels.csv") if record.mask]
    broken, gone = labels[3], labels[8]
    (project.root / "data" / broken.image).write_bytes(b"no image")
    (project.root / "data" / gone.image).unlink()
    return sorted([broken.image, gone.image])


@pytest.mark.parametrize("name", ["quarantine", "the share"])
def test_what_fails_is_quarantined_by_both_engines_alike(spark, tiny_project, name):
    spark.conf.set("spark.sql.shuffle.partitions", 2)
    failed = spoil(tiny_project)
    if name == "the share":
        for share in (0, 0.02):
            tiny_project.set(build_dataset__max_failed_share=share, build_dataset__engine="local")
            message = tiny_project.refuse("build_dataset")
            tiny_project.set(build_dataset__engine="spark")
            assert tiny_project.refuse("build_dataset") == message
        return
    tiny_project.set(build_dataset__max_failed_share=0.05)
    printed = tiny_project.run("build_dataset")
    assert printed.endswith("; 2 of 80 images failed, see data/dataset/quarantine.csv\n")
    local = tiny_project.outputs(DATASET)
    table = pd.read_csv(io.BytesIO(local[f"{DATASET}/quarantine.csv"]))
    assert table.path.tolist() == failed
    tiny_project.set(build_dataset__engine="spark")
    assert tiny_project.run("build_dataset") == printed
    assert tiny_project.outputs(DATASET) == local


def test_a_killed_worker_ends_the_run_and_the_next_is_whole(spark, tiny_project, kill_a_worker):
    spark.conf.set("spark.sql.shuffle.partitions", 8)
    tiny_project.set(build_dataset__augment__copies=20, build_dataset__image_size=96)
    tiny_project.run("build_dataset")
    local = tiny_project.outputs(DATASET)
    tiny_project.set(build_dataset__engine="spark")
    kill_a_worker(tiny_project.root / "data/.dataset.partial/rows", "*.parquet")
    assert "a process of Spark died" in tiny_project.refuse("build_dataset")
    assert not (tiny_project.root / "data/.dataset.partial").exists()
    tiny_project.run("build_dataset")
    assert tiny_project.outputs(DATASET) == local


def test_photos_of_screws(spark, tiny_project):
    root = SHARED / "mvtec/screw"
    if not root.is_dir():
        pytest.skip("no ../shared/data/mvtec/screw")
    tiny_project.set(
        source__path=str(root.resolve()), extract_frames__size=96, build_dataset__image_size=64,
        build_dataset__rows_per_shard=100,
    )  # fmt: skip
    for stage in ("extract_frames", "synthesize_anomalies", "label"):
        tiny_project.run(stage)
    printed = tiny_project.run("build_dataset")
    local = tiny_project.outputs(DATASET)
    tiny_project.set(build_dataset__engine="spark")
    for partitions in (1, 2, 7):
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        assert tiny_project.run("build_dataset") == printed
        assert tiny_project.outputs(DATASET) == local
