"""Batch scoring by Spark: a task scores a part of the photos as `blackswan score` does, whole.

A part is a file of its own name, so one that a task writes again is the same, and a run that was
killed goes on with the parts that are missing.
"""

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path

import pandas as pd

from blackswan.data.photos import Photo
from blackswan.data.records import Frame, SourceImage
from blackswan.data.regions import Ignored
from blackswan.distributed.session import in_this_folder, one_row, session
from blackswan.evaluation.model import Model, load
from blackswan.reporting.verdicts import Spread, prepared, write_part

SCORED = "number long"


def spread_with_spark(
    model: Path, folder: Path, *, page: bool, may_fail: bool, ignored: Ignored | None = None
) -> Spread:
    """Return what scores parts into `folder`, by the model and in the folders that all share."""

    def spread(parts: Iterable[tuple[int, list[SourceImage]]]) -> None:
        listed = [(number, json.dumps([_entry(item) for item in items])) for number, items in parts]
        if not listed:
            return
        score = partial(_score, model, folder, page=page, may_fail=may_fail, ignored=ignored)
        work = in_this_folder(score)
        with session() as spark:
            table = spark.createDataFrame(pd.DataFrame(listed, columns=["number", "items"]))
            # Many tasks: one that fails costs little.
            table.repartition(len(listed)).mapInPandas(work, SCORED).collect()

    return spread


def _entry(item: SourceImage) -> tuple[str, str, str, int]:
    photo = item.read
    assert isinstance(photo, Photo)  # no frame of a video
    return item.frame.image, item.frame.source, str(photo.image), photo.bit_depth


def _score(
    model: Path,
    folder: Path,
    batches: Iterable[pd.DataFrame],
    *,
    page: bool,
    may_fail: bool,
    ignored: Ignored | None,
) -> Iterator[pd.DataFrame]:
    """Score the parts of a task."""
    for batch in batches:
        for number, text in zip(batch.number, batch["items"], strict=True):
            images = [
                SourceImage(Frame(name, source), Photo(Path(path), bit_depth=bit_depth))
                for name, source, path, bit_depth in json.loads(text)
            ]
            judge = _loaded(model)
            items = list(prepared(judge, images, ignored))
            write_part(judge, items, folder, number, page=page, may_fail=may_fail)
            yield one_row(SCORED, number)


@lru_cache(maxsize=1)
def _loaded(model: Path) -> Model:
    """Load a model once in a worker."""
    return load(model)
