"""What comes first: the best detector of a table, the worst mistake of a detector."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

MAIN = "main"  # the table of the defects that count; each unseen generator has one of its own
BASELINE = "median_residual"  # it learns nothing: what is behind it has not earned its keep
AGAINST = f"against_{BASELINE}"
MERITS = ("image_auroc", "pixel_auroc")  # what the order goes by
WITH_INTERVAL = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
GROUPS = ("n_groups", "n_pixel_groups")  # that the intervals of images, of pixels rest on
COLUMNS = [
    "table",
    "rank",
    "detector",
    *[f"{key}{end}" for key in WITH_INTERVAL for end in ("", "_low", "_high")],
    "image_f1",
    "false_positive_rate",
    "verdict",  # does the threshold hold
    "recall",
    "expected_calibration_error",
    "n_normal",
    "n_anomalous",
    *GROUPS,
    AGAINST,
]
SUMMARISED = [
    "image_auroc",
    "image_auroc_low",
    "image_auroc_high",
    "image_ap",
    "image_f1",
    "false_positive_rate",
    "verdict",
    "recall",
    "pixel_auroc",
    "pixel_auroc_low",
    "pixel_auroc_high",
    "pixel_aupro",
    "pixel_aupro_low",
    "pixel_aupro_high",
    "expected_calibration_error",
    "normal_score_mean",
    "normal_score_max",
    "anomalous_score_min",
    "n_normal",
    "n_anomalous",
    *GROUPS,
    "threshold",
]

Row = dict[str, Any]


def rank_detectors(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Row]]:
    """Return the rows of each table, main first, best first, by image AUROC and then pixel AUROC.

    `results` holds the metrics of each detector, those of unseen generators under `unseen`. A row
    says where it is ahead of the baseline or behind it, or that it is level with it.
    """
    unseen = sorted({table for result in results.values() for table in result["unseen"]})
    return {table: _rank(table, results) for table in [MAIN, *unseen]}


def summarise(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    """Return the main keys of each detector, few enough for `dvc exp show`.

    Of the unseen generators there is the image AUROC, as far as it is defined.
    """
    return {
        detector: {key: result[key] for key in SUMMARISED if key in result}
        | {
            "unseen": {
                table: metrics["image_auroc"]
                for table, metrics in result["unseen"].items()
                if "image_auroc" in metrics
            }
        }
        for detector, result in results.items()
    }


def interval(row: Mapping[str, Any], key: str, digits: int) -> str:
    """Return the value of `key` as text, with its interval where there is one."""
    value, low, high = (row.get(f"{key}{end}") for end in ("", "_low", "_high"))
    if low is None or pd.isna(low):
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def group_count(row: Mapping[str, Any]) -> str:
    """Return how many groups the intervals rest on, of pixels too if others, '' if unmeasured."""
    counts = [row.get(key) for key in GROUPS]
    images, pixels = (None if count is None or pd.isna(count) else int(count) for count in counts)
    if images is None:
        return ""
    return f"{images}" if pixels in (None, images) else f"{images}, of pixels {pixels}"


def worst_first(scores: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Sort images: the mistakes, the grossest first, then the rest, the least certain first.

    `scores` has path, label, table, image_score and flagged; a score counts
    by its distance from the threshold as a share of the longest one on its side, so that
    misses and false alarms mix; the worst of each table come before the second worst of any.
    """
    wrong = scores.flagged != (scores.label == 1)
    distance = (scores.image_score - threshold).abs()
    reach = distance.groupby(scores.flagged).transform("max")
    certainty = np.where(reach > 0, distance / reach, 0) * np.where(wrong, -1, 1)
    ordered = scores.assign(right=~wrong, certainty=certainty).sort_values(
        ["right", "certainty", "path"]
    )
    turn = ordered.groupby(["right", "table"]).cumcount()
    return (
        ordered.assign(turn=turn)
        .sort_values(["right", "turn"], kind="stable")
        .drop(columns=["right", "certainty", "turn"])
    )


def typical_find(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row: of the anomalies found that with the middle score, else of all images."""
    found = scores[(scores.table == MAIN) & (scores.label == 1) & scores.flagged]
    ordered = (found if len(found) else scores).sort_values(["image_score", "path"])
    return ordered.iloc[[len(ordered) // 2]]


def _rank(table: str, results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    rows = []
    for detector, result in results.items():
        metrics = result if table == MAIN else result["unseen"].get(table)
        if metrics is not None:
            rows.append(
                {key: metrics[key] for key in COLUMNS if key in metrics}
                | {key: result[key] for key in ("verdict",) if key in result}
                | {"table": table, "detector": detector}
            )
    rows.sort(key=lambda row: (*(-row.get(key, -1) for key in MERITS), row["detector"]))
    baseline = next((row for row in rows if row["detector"] == BASELINE), None)
    return [
        row | {"rank": rank, AGAINST: _standing(row, baseline)}
        for rank, row in enumerate(rows, start=1)
    ]


def _standing(row: Row, baseline: Row | None) -> str:
    if baseline is None or row is baseline:
        return ""
    compared = [key for key in MERITS if key in row and key in baseline]
    for key in compared:
        if row[key] != baseline[key]:
            return f"{'ahead' if row[key] > baseline[key] else 'behind'} in {key}"
    return "level" if compared else ""
