"""A Spark session: that of the platform where there is one, else one opened here and ended here.

Master, memory and all else come from `spark-defaults.conf` or PYSPARK_SUBMIT_ARGS and win over what
stands here. Whatever Spark fails with ends in one sentence.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import pandas as pd

from blackswan.errors import FULL_DISK, InputError, without_secrets
from blackswan.parallel import available_cores

Work = Callable[[Iterable[pd.DataFrame]], Iterator[pd.DataFrame]]

BATCH_BYTES = 64_000_000  # of files that a task holds at once, beside the pixels of one image
GATHERED_BYTES, GATHERED_ROWS = 8_000_000, 500  # of what a task has made, before it hands it over
# A task needs no more than this, whatever the number of images.
BOUNDS = {
    "spark.sql.execution.arrow.maxBytesPerBatch": str(BATCH_BYTES),
    "spark.sql.execution.arrow.maxRecordsPerBatch": "1000",
    "spark.sql.sources.binaryFile.maxLength": str(BATCH_BYTES),
}
UNBOUNDED = {"-1", "10000", "2147483647", "9223372036854775807"}  # Spark's own
SETTINGS = {
    "spark.app.name": "blackswan",
    "spark.log.level": "OFF",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    # Spark's own 4 MB make a task of every 32 images.
    "spark.sql.files.openCostInBytes": "65536",
    **BOUNDS,
}
ON_THIS_MACHINE = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    # Spark's own 200 are for a cluster.
    "spark.sql.shuffle.partitions": str(4 * available_cores()),
}
NO_MEMORY = ("MemoryError", "must be at least", "Could not reserve enough space",
             "Invalid maximum heap size", "Too small maximum heap")  # fmt: skip
CANNOT_BIND = ("BindException", "Service 'sparkDriver' failed", "UnknownHostException")
DIED = ("Python worker exited unexpectedly", "Answer from Java side is empty", "Connection refused")
# What our functions say in a task, at the end of the traceback of its worker.
SENTENCE = re.compile(r"^blackswan\.\S*(?:InputError|UnreachableError): (.+)$", re.MULTILINE)


@contextmanager
def session() -> Iterator[Any]:
    """Yield a SparkSession; raises InputError where it cannot be opened or fails at its work."""
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException, PythonException
        from pyspark.sql import SparkSession
    except ImportError:
        raise InputError(
            "Spark is not installed, which engine: spark needs; `pip install -e .[spark]`, or set "
            "the engine to local"
        ) from None
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    active = SparkSession.getActiveSession()
    # A platform or spark-submit has started Java, and ends it.
    ours = active is None and "PYSPARK_GATEWAY_PORT" not in os.environ
    with tempfile.TemporaryFile() as said:
        try:
            spark = _open(said) if ours else active or SparkSession.builder.getOrCreate()
            try:
                with _bounded(spark):
                    yield spark
            finally:
                if ours:
                    spark.stop()
        except (Py4JError, PySparkException, ConnectionError) as error:
            said.seek(0)
            words = "\n".join([str(error), said.read().decode(errors="replace")])
            known = SENTENCE.search(words) or "MemoryError" in words
            if isinstance(error, PythonException) and not known:
                raise  # a bug of ours in a task
            raise InputError(explain(words)) from None


def in_this_folder(work: Work) -> Work:
    """Return what a task does, in a worker whose relative paths begin where they do here."""
    folder = Path.cwd()

    def there(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        os.chdir(folder)
        cv2.setNumThreads(1)  # as parallel_map does: a task has a core
        yield from work(batches)

    return there


def one_row(schema: str, *values: object) -> pd.DataFrame:
    """Return a row as a task hands it to Spark, given the schema that Spark was told."""
    return next(in_tables(schema, [values]))


def in_tables(schema: str, rows: Iterable[Sequence[object]]) -> Iterator[pd.DataFrame]:
    """Gather rows into the tables that a task hands to Spark, bounded in bytes and rows.

    A table for every row would take ten times as long.
    """
    columns = [column.split()[0] for column in schema.split(", ")]
    gathered: list[Sequence[object]] = []
    held = 0
    for row in rows:
        gathered.append(row)
        held += sum(len(value) for value in row if isinstance(value, bytes))
        if held >= GATHERED_BYTES or len(gathered) == GATHERED_ROWS:
            yield _table(gathered, columns)
            gathered, held = [], 0
    if gathered:
        yield _table(gathered, columns)


def _table(rows: list[Sequence[object]], columns: list[str]) -> pd.DataFrame:
    # Of objects: what pandas makes of strings, Spark takes only where none is missing.
    return pd.DataFrame(rows, columns=columns, dtype=object)


def explain(words: str) -> str:
    """Return the sentence for what Spark and Java said of a failure."""
    if sentence := SENTENCE.search(words):
        return sentence[1]
    if any(word in words for word in FULL_DISK):
        return "the disk is full, or that of SPARK_LOCAL_DIRS; free some space, run again"
    if any(word in words for word in NO_MEMORY):
        return (
            "Spark has too little memory; raise spark.driver.memory (and spark.executor.memory) in "
            "spark-defaults.conf, run again"
        )
    if any(word in words for word in CANNOT_BIND):
        return (
            "Spark cannot bind to its address; mend SPARK_LOCAL_IP, spark.driver.host and "
            "spark.driver.bindAddress, or unset them"
        )
    if any(word in words for word in DIED):
        return (
            "a process of Spark died, as when the memory is full; the same command goes on from "
            "here (fewer cores, as spark.master local[1], need less)"
        )
    if "UnsupportedClassVersionError" in words:
        return "Java is too old for Spark; install Java 17, or let JAVA_HOME name it"
    found = re.findall(r"(?:Exception|Error): *(.+)", words) or words.splitlines()
    return (
        f"Spark fails ({without_secrets(found[-1], 'its words may hold a secret')}); mend that, or "
        "set the engine to local"
    )


def _open(said: IO[bytes]) -> Any:  # noqa: ANN401 - a SparkSession
    """Open a session; what Java prints meanwhile goes to `said`."""
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    _check_java()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if not SparkContext._gateway:  # one lasts as long as this process
        gateway = launch_gateway(popen_kwargs={"stdout": subprocess.DEVNULL, "stderr": said})
        SparkContext._ensure_initialized(gateway=gateway)
    settings = SparkConf()  # with those of spark-defaults.conf
    settings.setIfMissing("spark.master", "local[*]")
    here = settings.get("spark.master", "").startswith("local")
    for name, value in (SETTINGS | (ON_THIS_MACHINE if here else {})).items():
        settings.setIfMissing(name, value)
    return SparkSession.builder.config(conf=settings).getOrCreate()


def _check_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if not (Path(home, "bin", "java").exists() if home else shutil.which("java")):
        where = f" in JAVA_HOME, {home}" if home else ""
        raise InputError(
            f"Java is missing{where}, which engine: spark needs; install Java 17 (apt-get install "
            "openjdk-17-jre-headless), or set the engine to local"
        )


@contextmanager
def _bounded(spark: Any) -> Iterator[None]:  # noqa: ANN401
    """Bound what a task holds, in a session of the platform too, unless a person has."""
    before = {name: spark.conf.get(name) for name in BOUNDS}
    changed = {name: value for name, value in before.items() if value in UNBOUNDED}
    for name in changed:
        spark.conf.set(name, BOUNDS[name])
    try:
        yield
    finally:
        for name, value in changed.items():
            spark.conf.set(name, value)
