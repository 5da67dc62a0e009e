"""Images from wherever they lie: a URL that fsspec reads, names that Spark passes over."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import fsspec
import pytest
from azure.storage.blob import ContainerClient
from conftest import ROOT

from blackswan.data.rows import File
from blackswan.distributed.files import (
    Root,
    UnreachableError,
    fetch,
    hadoop_path,
    literal,
    root_of,
)
from blackswan.errors import InputError
from tools import azurite

DATASET = "data/dataset"


def test_a_root_is_a_folder_or_a_url():
    assert root_of("data/") == Root("data", "path")
    assert root_of("file:///mnt/two words") == Root("/mnt/two words", "path")
    assert root_of("abfss://c@a.dfs.core.windows.net/x/") == Root(
        "abfss://c@a.dfs.core.windows.net/x", "nothing"
    )
    assert root_of("dbfs:/Volumes/a").otherwise == "nothing"
    assert hadoop_path("/mnt/x") == "file:/mnt/x"
    assert hadoop_path("/Volumes/a/b/c/x") == "/Volumes/a/b/c/x"
    assert hadoop_path("abfss://c@a/x") == "abfss://c@a/x"
    assert literal("/a [1]{x}*?\\b") == r"/a \[1\]\{x\}\*\?\\b"


def test_what_spark_has_not_read_is_opened_by_its_root():
    assert Root("data", "path").open("a.png", None) == File("data/a.png")
    assert Root("az://c", "fsspec").open("a.png", b"x") == File("az://c/a.png", b"x")
    with pytest.raises(InputError, match=r"^abfss://c/a.png does not exist, has a name that Spark"):
        Root("abfss://c", "nothing").open("a.png", None)


def test_fsspec_reads_a_url_and_says_what_is_wrong():
    with fsspec.open("memory://photos/a.png", "wb") as file:
        file.write(b"x")
    assert Root("memory://photos", "fsspec").open("a.png", None).data == b"x"
    with pytest.raises(InputError, match=r"^memory://photos/b.png does not exist"):
        fetch("memory://photos/b.png")
    with pytest.raises(UnreachableError, match=r"^nonsense://b.png cannot be read"):
        fetch("nonsense://b.png")


@pytest.mark.parametrize("name", ["_000003.png", "12:30.png"])
@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_names_that_spark_passes_over(spark, tiny_project, name):
    """An image is renamed to what Hadoop takes for hidden, or for a URL."""
    spark.conf.set("spark.sql.shuffle.partitions", 2)
    old = "frames/images/clip/000003.png"
    (tiny_project.root / "data" / old).rename(tiny_project.root / "data/frames/images/clip" / name)
    table = tiny_project.root / "data/labels.csv"
    table.write_text(table.read_text().replace(f"\n{old},", f"\nframes/images/clip/{name},"))
    printed = tiny_project.run("build_dataset")
    local = tiny_project.outputs(DATASET)
    place = f"file://{tiny_project.root}/data"
    tiny_project.set(build_dataset__engine="spark", build_dataset__images=place)
    assert tiny_project.run("build_dataset") == printed
    assert tiny_project.outputs(DATASET) == local


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_images_elsewhere_and_those_without_a_label(spark, tiny_project, tmp_path, capsys):
    spark.conf.set("spark.sql.shuffle.partitions", 2)
    local = tiny_project.outputs(DATASET)
    mirror = tmp_path / "two words [1] %20"
    mirror.mkdir()
    shutil.move(tiny_project.root / "data/frames/images", mirror / "frames/images")
    shutil.move(tiny_project.root / "data/anomalies", mirror / "anomalies")
    tiny_project.set(build_dataset__engine="spark", build_dataset__images=f"file://{mirror}")
    tiny_project.run("build_dataset")
    assert tiny_project.outputs(DATASET) == local
    # Those between the splits.
    assert f"file://{mirror}: 6 images have no row in the label table and are left out: " in (
        capsys.readouterr().err
    )
    tiny_project.set(build_dataset__images="nonsense://x", build_dataset__max_failed_share=0.9)
    assert re.fullmatch(
        r"error: nonsense://x/\S+ cannot be read \(.*\); check the network and the credentials in "
        "the environment, run again", tiny_project.refuse("build_dataset"),
    )  # fmt: skip
    tiny_project.set(build_dataset__images=f"file://{tmp_path}/nowhere")
    assert "nowhere has no folder anomalies or frames" in tiny_project.refuse("build_dataset")


@pytest.fixture
def emulator(tmp_path):
    """Start Azurite on a port of its own; return what opens it."""
    if not shutil.which("npm"):
        pytest.skip("npm is missing, which installs Azurite")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pid = azurite.spawn(tmp_path / "azurite", port)
    try:
        azurite.wait(tmp_path / "azurite", pid, port)
        azurite.create_container(port)
        yield azurite.connection_string(port)
    finally:
        os.kill(pid, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
@pytest.mark.timeout(300)
def test_a_run_reads_its_images_from_azure(tiny_project, emulator):
    """Spark has no driver for Azure here, so fsspec reads, with what the environment says."""
    pytest.importorskip("pyspark", reason="the extra spark is not installed")
    if not shutil.which("java"):
        pytest.skip("Java is missing")
    local = tiny_project.outputs(DATASET)
    data = tiny_project.root / "data"
    with ContainerClient.from_connection_string(emulator, azurite.CONTAINER) as container:
        for path in (*data.glob("frames/images/**/*.png"), *data.glob("anomalies/**/*.png")):
            container.upload_blob(f"run 1/{path.relative_to(data)}", path.read_bytes())
    shutil.rmtree(data / "frames/images")
    shutil.rmtree(data / "anomalies")
    shutil.rmtree(data / "dataset")
    url = f"abfss://{azurite.CONTAINER}@{azurite.ACCOUNT}.dfs.core.windows.net/run 1"
    tiny_project.set(build_dataset__engine="spark", build_dataset__images=url)
    done = subprocess.run(
        [sys.executable, "stages/build_dataset.py"], cwd=tiny_project.root,
        capture_output=True, text=True, check=False,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "AZURE_STORAGE_CONNECTION_STRING": emulator,
            "PYSPARK_SUBMIT_ARGS": "--conf spark.sql.shuffle.partitions=2 pyspark-shell",
        },
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert tiny_project.outputs(DATASET) == local
