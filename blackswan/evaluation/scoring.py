"""Scoring for evaluation: the same for every detector, one batch of images in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from tqdm import tqdm

from blackswan.data.dataset import Row, Split, mask_of
from blackswan.data.images import decode_image
from blackswan.detectors.interface import Detector, Scores
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.evaluation.ranking import MAIN
from blackswan.params import Section

MAPS = pa.schema(
    [
        ("path", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("anomaly_map", pa.binary()),  # float32, row by row
    ]
)


class Params(Section):
    """How detectors are judged."""

    alpha: float = Field(gt=0, lt=1)  # accepted probability of a false alarm
    batch_size: int = Field(ge=1)
    calibration_bins: int = Field(ge=2)


@dataclass(frozen=True)
class ScoredSplit:
    """What a detector says of a split."""

    images: pd.DataFrame  # path, label, defect, synthetic, group, table, image_score
    pixels: dict[str, PixelMetrics]  # of each table; normal images count in all of them
    probabilities: bool  # the image scores are probabilities


def score_validation(detector: Detector, split: Split, batch_size: int) -> pd.DataFrame:
    """Return label, defect, image_score and the peak of the map of every image."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "label": [row.label for row in rows],
                    "defect": [row.defect for row in rows],
                    "image_score": scores.image_scores,
                    "map_peak": scores.anomaly_maps.max(axis=(1, 2)),
                }
            )
            for rows, scores in _score(detector, split, batch_size)
        ]
    )


def score_test(
    detector: Detector, split: Split, seen: set[str], batch_size: int, maps: Path
) -> ScoredSplit:
    """Score every image and write its anomaly map to the Parquet file `maps`.

    A synthetic defect that is not among `seen` has a table of its own.
    """
    facts = split.facts[["path", "label", "defect", "synthetic", "group"]]
    unseen = facts.synthetic & (facts.label == 1) & ~facts.defect.isin(seen)
    images = facts.assign(table=facts.defect.where(unseen, MAIN))
    pixels = {table: PixelMetrics() for table in sorted({MAIN, *images.table})}
    table_of = iter(images.table)
    image_scores: list[float] = []
    probabilities = False
    with pq.ParquetWriter(maps, MAPS, compression="zstd") as writer:
        for rows, scores in _score(detector, split, batch_size):
            writer.write_table(_to_table(rows, scores.anomaly_maps))
            image_scores += scores.image_scores.tolist()
            probabilities = scores.probabilities
            for row, anomaly_map, own in zip(rows, scores.anomaly_maps, table_of, strict=False):
                mask = mask_of(row, anomaly_map.shape)
                for table in pixels if row.label == 0 else [own]:
                    if mask is not None:
                        pixels[table].add(anomaly_map, mask, row.group)
    return ScoredSplit(images.assign(image_score=image_scores), pixels, probabilities)


def _score(detector: Detector, split: Split, batch_size: int) -> Iterator[tuple[list[Row], Scores]]:
    starts = range(0, len(split), batch_size)
    for start in tqdm(starts, desc=f"scoring {split.name}", unit="batch", disable=None):
        rows = [split[index] for index in range(start, min(start + batch_size, len(split)))]
        yield rows, detector.score([decode_image(row.image) for row in rows])


def _to_table(rows: list[Row], anomaly_maps: np.ndarray) -> pa.Table:
    height, width = anomaly_maps.shape[1:]
    maps = zip(rows, anomaly_maps.astype("<f4"), strict=True)
    return pa.Table.from_pylist(
        [
            {"path": row.path, "height": height, "width": width, "anomaly_map": one.tobytes()}
            for row, one in maps
        ],
        MAPS,
    )
