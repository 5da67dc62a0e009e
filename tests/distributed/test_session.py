"""What Spark and Java fail with ends in one sentence, and nothing is left running."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from blackswan.distributed.session import BATCH_BYTES, explain, in_this_folder, one_row, session
from blackswan.errors import InputError

OPEN = (
    "from blackswan.distributed.session import session\n"
    "from blackswan.errors import explained\n"
    "def main():\n"
    "    with session() as spark:\n"
    "        print(spark.conf.get('spark.sql.execution.arrow.maxBytesPerBatch'))\n"
    "explained(main)\n"
)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with pytest.raises(InputError, match=r"Spark is not installed.*`pip install -e \.\[spark\]`"):
        session().__enter__()


@pytest.mark.parametrize(
    ("home", "message"),
    [("nowhere", "Java is missing in JAVA_HOME, nowhere"), (None, "Java is missing, which")],
)
def test_a_missing_java_is_told(tmp_path, monkeypatch, home, message):
    pytest.importorskip("pyspark")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if home:
        monkeypatch.setenv("JAVA_HOME", home)
    with pytest.raises(InputError, match=message):
        session().__enter__()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "...\nblackswan.errors.InputError: the model is gone; fetch it\n\n at",
            "the model is gone",
        ),
        ("java.lang.OutOfMemoryError: Java heap space", "Spark has too little memory; raise"),
        ("  File x\nMemoryError\n\tat java", "Spark has too little memory; raise"),
        ("java.net.BindException: Cannot assign requested address", "Spark cannot bind"),
        ("SparkException: Python worker exited unexpectedly (crashed).", "a process of Spark died"),
        ("x: java.io.IOException: No space left on device", "the disk is full"),
        ("java.lang.UnsupportedClassVersionError: 61.0", "Java is too old for Spark"),
        ("Caused by: a.B.StoreException: no such store\n\tat c.D", "Spark fails (no such store);"),
        ("a.B.StoreException: AccountKey=abc", "Spark fails (its words may hold a secret);"),
    ],
)
def test_what_failed_is_said_in_a_sentence(words, sentence):
    assert explain(words).startswith(sentence)
    assert "\n" not in explain(words)


def test_a_task_works_in_the_folder_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = in_this_folder(lambda batches: (Path.cwd() for _ in batches))
    monkeypatch.chdir(ROOT)
    assert list(task([1])) == [tmp_path]


def test_a_row_keeps_what_is_missing():
    row = one_row("number long, text string", 3, None)
    assert row.to_dict("list") == {"number": [3], "text": [None]}
    assert row.dtypes.tolist() == [object, object]


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
def test_a_task_gets_no_more_than_is_stated(spark):
    def sizes(batches):
        yield from (pd.DataFrame({"bytes": [batch.data.str.len().sum()]}) for batch in batches)

    rows = spark.range(150, numPartitions=1).selectExpr("repeat('x', 1000000) as data")
    found = [row.bytes for row in rows.mapInPandas(sizes, "bytes long").collect()]
    assert sum(found) == 150_000_000
    assert BATCH_BYTES / 2 < max(found) <= BATCH_BYTES


@pytest.mark.slow
@pytest.mark.xdist_group("spark")
@pytest.mark.skipif(not shutil.which("java"), reason="Java is missing")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"PYSPARK_SUBMIT_ARGS": "--driver-memory 100m pyspark-shell"},
            "error: Spark has too litt",
        ),
        (
            {
                "PYSPARK_SUBMIT_ARGS": "--conf spark.driver.bindAddress=198.51.100.1"
                " --conf spark.port.maxRetries=1 pyspark-shell"
            },
            "error: Spark cannot bind to its address",
        ),
    ],
)
def test_a_session_that_cannot_be_opened_is_told(changes, message):
    pytest.importorskip("pyspark")
    done = subprocess.run(
        [sys.executable, "-c", OPEN], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **changes},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
