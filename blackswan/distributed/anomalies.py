"""Synthetic anomalies by Spark: a task makes one image after another.

Frames are read and images written by path, in a folder that all machines share. A task that runs
again writes the same bytes to the same names.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from blackswan.data import synthesis
from blackswan.data.anomalies import Job, make
from blackswan.data.quarantine import Failure, attempt
from blackswan.data.records import Frame
from blackswan.distributed.session import in_tables, in_this_folder, session

MADE = "position long, reason string, record string"  # both null where an image shows nothing


def make_with_spark(
    jobs: list[Job], seed: int, patch: synthesis.Params, frames: Path, folder: Path
) -> list[Frame | Failure | None]:
    """Make each image by a task; return what `make` did of each job, or why it failed."""
    work = in_this_folder(partial(_make, seed=seed, patch=patch, frames=frames, folder=folder))
    with session() as spark:
        listed = [(at, json.dumps(asdict(job))) for at, job in enumerate(jobs)]
        table = spark.createDataFrame(pd.DataFrame(listed, columns=["position", "job"]))
        tasks = int(spark.conf.get("spark.sql.shuffle.partitions"))
        done = table.repartition(tasks, "position").mapInPandas(work, MADE).collect()
    if len(done) != len(jobs):
        raise RuntimeError(f"Spark ran {len(done)} jobs instead of {len(jobs)}")
    found: list[Frame | Failure | None] = [None] * len(jobs)
    for row in done:
        if row.reason is not None:
            found[row.position] = Failure(jobs[row.position].frame.image, row.reason)
        elif row.record is not None:
            found[row.position] = Frame(**json.loads(row.record))
    return found


def _make(
    batches: Iterable[pd.DataFrame],
    seed: int,
    patch: synthesis.Params,
    frames: Path,
    folder: Path,
) -> Iterator[pd.DataFrame]:
    """Make the images of a task."""
    yield from in_tables(MADE, _made(batches, seed, patch, frames, folder))


def _made(
    batches: Iterable[pd.DataFrame],
    seed: int,
    patch: synthesis.Params,
    frames: Path,
    folder: Path,
) -> Iterator[tuple[object, ...]]:
    """Yield the values of MADE, of each image."""
    for batch in batches:
        for position, text in zip(batch.position, batch.job, strict=True):
            job = _job(json.loads(text))
            made = attempt(job.frame.image, partial(make, job, seed, patch, frames, folder))
            reason = made.reason if isinstance(made, Failure) else None
            record = json.dumps(asdict(made)) if isinstance(made, Frame) else None
            yield position, reason, record


def _job(fields: dict[str, Any]) -> Job:
    lender = fields["lender"]
    return Job(
        Frame(**fields["frame"]),
        fields["generator"],
        fields["name"],
        None if lender is None else Frame(**lender),
    )
