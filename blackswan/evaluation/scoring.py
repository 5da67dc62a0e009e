"""Scoring for evaluation: the same for every detector, one batch of images in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field
from tqdm import tqdm

from blackswan.data.batches import of_one_size
from blackswan.data.dataset import Row, Split, mask_of
from blackswan.data.images import decode_image
from blackswan.detectors.interface import Detector, Scores
from blackswan.evaluation import calibration
from blackswan.evaluation.ignoring import counted
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.evaluation.ranking import MAIN
from blackswan.evaluation.score_maps import open_writer, to_table
from blackswan.params import Section

COLOURED = 32  # anomalies of validation whose median peak ends the colour scale, at most


class Params(Section):
    """How detectors are judged."""

    alpha: float = Field(gt=0, lt=1)  # accepted probability of a false alarm
    batch_size: int = Field(ge=1)
    calibration_bins: int = Field(ge=2)
    calibration: calibration.Choice  # where a fit takes seconds; the others leave it to validation
    miss_rate: float = Field(gt=0, lt=1)  # accepted share of misses, of anomalies like validation's


@dataclass(frozen=True)
class ScoredSplit:
    """What a detector says of a split."""

    images: pd.DataFrame  # path, label, defect, synthetic, group, table, image_score
    pixels: dict[str, PixelMetrics]  # of each table; normal images count in all of them
    probabilities: bool  # the image scores are probabilities
    hidden: int  # anomalous images of which no marked pixel counts


@dataclass(frozen=True)
class Calibration:
    """Scores of images that set threshold, p-values and colours, none of them a test image."""

    normals: pd.DataFrame  # as calibration.calibrate returns them
    anomalies: pd.DataFrame  # of validation, all or COLOURED: image_score, map_peak
    threshold_from: str

    @property
    def left_out(self) -> pd.DataFrame:
        """Return the first set, whose threshold alone would flag no less than both do."""
        return self.normals[self.normals["set"] == calibration.LEFT_OUT]

    def sets(self, column: str = "image_score") -> list[np.ndarray]:
        """Return the one or two sets of normal scores."""
        return calibration.sets_of(self.normals, column)


def read_calibration(
    detector: Detector, folder: Path, validation: Split, params: Params, *, all_anomalies: bool
) -> Calibration:
    """Take the normal scores that the fit left in `folder`, else score those of validation.

    A threshold that lies between needs `all_anomalies`; for colours COLOURED of them will do.
    """
    facts = validation.facts
    anomalies = facts[facts.label == 1]
    if not all_anomalies:
        spread = np.linspace(0, len(anomalies) - 1, min(len(anomalies), COLOURED))
        anomalies = anomalies.iloc[spread.astype(int)]
    normals = calibration.read_scores(folder)
    if normals is not None:
        scored = score_validation(detector, validation, anomalies, params.batch_size)
        return Calibration(normals, scored, calibration.described(normals, params.alpha))
    chosen = facts[(facts.label == 0) | facts.index.isin(anomalies.index)]
    scored = score_validation(detector, validation, chosen, params.batch_size)
    normals = scored[scored.label == 0].assign(set=calibration.LEFT_OUT)
    source = f"{len(normals)} normal validation images, alpha {params.alpha:g}"
    return Calibration(calibration.with_source(normals), scored[scored.label == 1], source)


def score_validation(
    detector: Detector, split: Split, facts: pd.DataFrame, batch_size: int
) -> pd.DataFrame:
    """Return some lines of the facts of the split with image_score and the peak of the map."""
    scores, peaks = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    for _, found in _score(detector, split, batch_size, facts.index.tolist()):
        scores.append(found.image_scores)
        peaks.append(found.anomaly_maps.max(axis=(1, 2)))
    return facts.assign(image_score=np.concatenate(scores), map_peak=np.concatenate(peaks))


def score_test(
    detector: Detector, split: Split, seen: set[str], batch_size: int, maps: Path
) -> ScoredSplit:
    """Score every image and write what its anomaly map is made of to the Parquet file `maps`.

    A synthetic defect that is not among `seen` has a table of its own.
    """
    facts = split.facts[["path", "label", "defect", "synthetic", "group"]]
    unseen = facts.synthetic & (facts.label == 1) & ~facts.defect.isin(seen)
    images = facts.assign(table=facts.defect.where(unseen, MAIN))
    pixels = {table: PixelMetrics() for table in sorted({MAIN, *images.table})}
    table_of = iter(images.table)
    image_scores: list[float] = []
    probabilities, hidden = False, 0
    with open_writer(maps) as writer:
        for rows, scores in _score(detector, split, batch_size, range(len(split))):
            writer.write_table(to_table([row.path for row in rows], scores))
            image_scores += scores.image_scores.tolist()
            probabilities, counts = scores.probabilities, counted(detector, scores.size)
            for row, anomaly_map, own in zip(rows, scores.anomaly_maps, table_of, strict=False):
                mask = mask_of(row, anomaly_map.shape)
                if counts is not None and mask is not None and mask.any():
                    hidden += not mask[counts].any()
                for table in pixels if row.label == 0 else [own]:
                    if mask is not None:
                        pixels[table].add(anomaly_map, mask, row.group, counts)
    return ScoredSplit(images.assign(image_score=image_scores), pixels, probabilities, hidden)


def _score(
    detector: Detector, split: Split, batch_size: int, indices: Sequence[int]
) -> Iterator[tuple[list[Row], Scores]]:
    shown = tqdm(indices, desc=f"scoring {split.name}", unit="image", disable=None)
    decoded = ((row, decode_image(row.image)) for row in map(split.__getitem__, shown))
    for batch in of_one_size(decoded, batch_size, itemgetter(1)):
        rows, images = zip(*batch, strict=True)
        yield list(rows), detector.score(images)
