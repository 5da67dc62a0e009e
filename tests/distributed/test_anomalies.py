"""Synthetic anomalies by Spark are those of the local engine, byte for byte."""

import io

import pandas as pd
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark"), pytest.mark.timeout(300)]

ANOMALIES = "data/anomalies"


@pytest.mark.parametrize("partitions", [1, 7])
def test_the_bytes_are_those_of_the_local_engine(spark, tiny_project, partitions):
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    tiny_project.set(
        synthesize_anomalies__generators=["salt_and_pepper", "poisson_blend", "scratch"],
        synthesize_anomalies__max_failed_share=0.05,
    )
    (tiny_project.root / "data/frames/images/clip/000003.png").write_bytes(b"no image")
    printed = tiny_project.run("synthesize_anomalies")
    assert printed.endswith("images failed, see data/anomalies/quarantine.csv\n")
    local = tiny_project.outputs(ANOMALIES)
    table = pd.read_csv(io.BytesIO(local[f"{ANOMALIES}/quarantine.csv"]))
    assert table.path.tolist() == ["images/clip/000003.png"]
    assert table.reason[0].startswith("data/frames/images/clip/000003.png is empty, corrupt")
    tiny_project.set(synthesize_anomalies__engine="spark")
    assert tiny_project.run("synthesize_anomalies") == printed
    assert tiny_project.outputs(ANOMALIES) == local
