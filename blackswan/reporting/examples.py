"""Read what the pictures show: images with their masks, and with the maps of a detector."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from blackswan.data.dataset import Split, mask_of
from blackswan.data.images import decode_image, decode_mask
from blackswan.evaluation.ranking import outcome
from blackswan.evaluation.score_maps import read_map
from blackswan.reporting import formats
from blackswan.reporting.drawing import shorten
from blackswan.reporting.sheets import Example

KINDS_SHOWN = 9  # normal and defects on the contact sheet, at most


def read_examples(
    chosen: pd.DataFrame, test: Split, maps: Path, show: Callable[[float], str] = formats.score
) -> Iterator[Example]:
    """Read image, mask and map of each chosen score, one at a time; `maps` is a Parquet file.

    `show` formats the score of the caption.
    """
    index = {path: number for number, path in enumerate(test.facts.path)}
    for score in chosen.itertuples():
        row = test[index[score.path]]
        anomaly_map = read_map(maps, score.path)
        yield Example(
            decode_image(row.image),
            mask_of(row, anomaly_map.shape),
            anomaly_map,
            outcome(bool(score.label), bool(score.flagged)),
            f"{shorten(Path(score.path).stem, 14)}  {shorten(score.defect, 14)}  "
            f"{show(score.image_score)}",
        )


def sample(test: Split, count: int) -> dict[str, list[tuple[np.ndarray, np.ndarray | None]]]:
    """Read `count` images of the normal ones and of each defect, spread over the test split."""
    kinds = test.facts.defect.where(test.facts.label == 1, "normal").replace("", "anomalous")
    samples = {}
    for kind in sorted(set(kinds), key=lambda kind: (kind != "normal", kind))[:KINDS_SHOWN]:
        places = np.flatnonzero(kinds == kind)
        spread = np.unique(np.linspace(0, len(places) - 1, count).astype(int))
        rows = [test[int(place)] for place in places[spread]]
        samples[kind] = [
            (decode_image(row.image), decode_mask(row.mask) if row.mask else None) for row in rows
        ]
    return samples
