"""The shards of the dataset by Spark: every byte as the local engine writes it.

First each image becomes rows, in a table beside the shards, and what fails is counted. Then the
rows are numbered in the order of the label table, and a task writes a shard at a time.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas as pd

from blackswan.data.dataset import FACTS, Row, shard_count, shard_path, write_shard
from blackswan.data.images import png_size
from blackswan.data.preprocessing import Preprocessing
from blackswan.data.quarantine import Failure, Quarantine, attempt
from blackswan.data.records import Frame
from blackswan.data.rows import Params, build_rows, check_one_size
from blackswan.data.splits import SPLITS
from blackswan.distributed.files import Root, hadoop_path, literal, root_of, unread, with_bytes
from blackswan.distributed.session import in_tables, in_this_folder, one_row, session
from blackswan.outputs import replace_file

DATA = "data"  # what the paths of the label table begin at, unless a URL is given
PARTS = ("image", "mask")  # of a record, in the order in which a task gets them
BUILT = (  # by a task: a version of an image, or the reason why there is none
    "position long, version long, reason string, path string, image binary, mask binary, "
    "facts string, height long, width long"
)
WRITTEN = "split string, rows long"


def write_with_spark(
    folder: Path,
    records: list[Frame],
    params: Params,
    done: Preprocessing,
    quarantine: Quarantine,
) -> dict[str, int]:
    """Write the shards of each split with Spark; return their rows.

    Raises InputError where images fail, differ in size, or Spark does.
    """
    with session() as spark:
        built = _build(spark, folder / "rows", records, params)
        failed = _collect_failures(built, records, quarantine)
        if params.keeps_sizes:
            check_one_size(_sizes(built, records))
        places: list[tuple[int, str, int]] = []
        expected = dict.fromkeys(SPLITS, 0)
        for position, record in enumerate(records):
            if position not in failed and record.split in SPLITS:
                places.append((position, record.split, expected[record.split]))
                expected[record.split] += params.versions(record.split)
        shards = {
            split: shard_count(rows, params.rows_per_shard) for split, rows in expected.items()
        }
        counts = _write(spark, built, folder, places, shards, params, done)
    for split in SPLITS:
        if not expected[split]:
            write_shard(shard_path(folder, split, 0, 1), [], done)
    if counts != expected:
        raise RuntimeError(f"Spark wrote {counts} rows instead of {expected}")
    shutil.rmtree(folder / "rows")
    return counts


def _build(spark: Any, folder: Path, records: list[Frame], params: Params) -> Any:  # noqa: ANN401
    """Make the rows of all images, each once, and return their table."""
    wanted = spark.createDataFrame(
        pd.DataFrame(
            [
                (position, number, path, json.dumps(asdict(record)))
                for position, record in enumerate(records)
                if record.split in SPLITS
                for number, part in enumerate(PARTS)
                if (path := getattr(record, part))
            ],
            columns=["position", "part", "path", "record"],
        )
    )
    if params.images is None:  # all machines have it, so nothing has to be listed and joined
        files, root = unread(wanted), root_of(DATA)
    else:
        folders = sorted({record.image.split("/")[0] for record in records})
        files, root = with_bytes(spark, wanted, params.images, folders)
    tasks = int(spark.conf.get("spark.sql.shuffle.partitions"))
    (
        files.repartition(tasks, "position")
        .sortWithinPartitions("position", "part")
        .mapInPandas(in_this_folder(partial(_build_rows, root=root, params=params)), BUILT)
        .write.parquet(hadoop_path(str(folder.absolute())))
    )
    return spark.read.schema(BUILT).parquet(literal(hadoop_path(str(folder.absolute()))))


def _build_rows(
    batches: Iterable[pd.DataFrame], root: Root, params: Params
) -> Iterator[pd.DataFrame]:
    """Build the rows of one image after another; runs in a task."""
    yield from in_tables(BUILT, _built(batches, root, params))


def _built(
    batches: Iterable[pd.DataFrame], root: Root, params: Params
) -> Iterator[tuple[object, ...]]:
    """Yield the values of BUILT, of each version of an image or of its failure."""
    parts = (item for batch in batches for item in batch.itertuples(index=False))
    for position, files in groupby(parts, attrgetter("position")):
        image, *mask = files
        record = Frame(**json.loads(image.record))
        rows = attempt(record.image, partial(_rows, record, [image, *mask], root, params))
        if isinstance(rows, Failure):
            yield position, None, rows.reason, *[None] * 6
            continue
        for version, row in enumerate(rows):
            height, width = png_size(row.image)
            facts = json.dumps({name: getattr(row, name) for name in FACTS})
            yield position, version, None, row.path, row.image, row.mask, facts, height, width


def _rows(record: Frame, files: list[Any], root: Root, params: Params) -> list[Row]:
    image, *mask = (root.open(file.path, file.data) for file in files)
    return build_rows(record, image, mask[0] if mask else None, params)


def _collect_failures(
    built: Any,  # noqa: ANN401
    records: list[Frame],
    quarantine: Quarantine,
) -> set[int]:
    """Take the failures in the order of the local engine; return their positions."""
    failed = {
        row.position: row.reason
        for row in built.filter("reason is not null").select("position", "reason").collect()
    }
    for position in sorted(failed, key=lambda at: (SPLITS.index(records[at].split), at)):
        quarantine.add(Failure(records[position].image, failed[position]))
    return set(failed)


def _sizes(built: Any, records: list[Frame]) -> Iterator[tuple[tuple[int, int], str]]:  # noqa: ANN401
    """Yield each size and the last image that has it, in the order of the first ones."""
    from pyspark.sql import functions as F

    sizes = built.filter("version = 0").groupBy("height", "width")
    found = sizes.agg(F.min("position").alias("first"), F.max("position").alias("last"))
    for row in found.orderBy("first").collect():
        yield (row.height, row.width), records[row.last].image


def _write(
    spark: Any,  # noqa: ANN401
    built: Any,  # noqa: ANN401
    folder: Path,
    places: list[tuple[int, str, int]],
    shards: dict[str, int],
    params: Params,
    done: Preprocessing,
) -> dict[str, int]:
    """Write each shard in a task, given where the rows of each position begin; count the rows."""
    from pyspark.sql import functions as F

    for split in SPLITS:
        (folder / split).mkdir()
    first = spark.createDataFrame(pd.DataFrame(places, columns=["position", "split", "first"]))
    work = partial(_write_shards, folder=folder, shards=shards, done=done)
    tasks = min(sum(shards.values()), int(spark.conf.get("spark.sql.shuffle.partitions")))
    written = (
        built.join(F.broadcast(first), "position")
        .withColumn("number", F.expr("first + version"))
        .withColumn("shard", F.expr(f"number div {params.rows_per_shard}"))
        .repartition(tasks, "split", "shard")
        .sortWithinPartitions("split", "shard", "number")
        .select("split", "shard", "path", "image", "mask", "facts")
        .mapInPandas(in_this_folder(work), WRITTEN)
        .collect()
    )
    counts = dict.fromkeys(SPLITS, 0)
    for row in written:
        counts[row.split] += row.rows
    return counts


def _write_shards(
    batches: Iterable[pd.DataFrame], folder: Path, shards: dict[str, int], done: Preprocessing
) -> Iterator[pd.DataFrame]:
    """Write one shard after another as its rows come; runs in a task."""
    rows = (item for batch in batches for item in batch.itertuples(index=False))
    for (split, shard), items in groupby(rows, attrgetter("split", "shard")):
        made = (Row(item.path, item.image, item.mask, **json.loads(item.facts)) for item in items)
        with replace_file(shard_path(folder, split, shard, shards[split])) as partial_file:
            count = write_shard(partial_file, made, done)
        yield one_row(WRITTEN, split, count)
