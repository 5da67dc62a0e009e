"""What comes first: the best detector of a table, the worst mistakes of a detector."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

MAIN = "main"  # the table of the defects that count; each unseen generator has one of its own
BASELINE = "median_residual"  # it learns nothing: what is behind it has not earned its keep
AGAINST = f"against_{BASELINE}"
MERITS = ("image_auroc", "pixel_auroc")  # what the order goes by
OUTCOMES = ("false alarm", "miss", "found", "normal")
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


def leaderboard(results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of all tables, with COLUMNS."""
    rows = [row for table in rank_detectors(results).values() for row in table]
    return pd.DataFrame(rows, columns=COLUMNS)


def rank_detectors(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Row]]:
    """Return the rows of each table, main first, best first, by image AUROC and then pixel AUROC.

    `results` holds the metrics of each detector, those of unseen generators under `unseen`. A row
    says where it is ahead of the baseline or behind it, or that it is level with it.
    """
    unseen = sorted({table for result in results.values() for table in result["unseen"]})
    return {table: _rank(table, results) for table in [MAIN, *unseen]}


def best_first(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the detectors in the order of their MERITS; what was not measured comes last."""
    return sorted(
        metrics, key=lambda name: (*(-metrics[name].get(key, -1) for key in MERITS), name)
    )


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


def outcome(anomalous: bool, flagged: bool) -> str:
    """Return what the detector made of an image, in a word of OUTCOMES."""
    if flagged:
        return "found" if anomalous else "false alarm"
    return "miss" if anomalous else "normal"


def outcome_counts(scores: pd.DataFrame) -> str:
    """Return how many images, by label and flagged, have each outcome: "false alarm 2, ..."."""
    counts = Counter(map(outcome, scores.label == 1, scores.flagged))
    return ", ".join(f"{name} {counts[name]}" for name in OUTCOMES if counts[name])


def mixed(scores: pd.DataFrame, threshold: float, count: int) -> pd.DataFrame:
    """Pick `count` images of every outcome, by outcome in the order of OUTCOMES.

    `scores` has path, label, table, image_score and flagged; outcomes take turns, and tables
    within them, so that many false alarms leave room for the finds. Of mistakes the grossest come
    first, of the rest those nearest the threshold.
    """
    wrong = scores.flagged != (scores.label == 1)
    distance = (scores.image_score - threshold).abs()
    outcomes = map(outcome, scores.label == 1, scores.flagged)
    ordered = scores.assign(
        outcome=[*map(OUTCOMES.index, outcomes)], certainty=distance.where(~wrong, -distance)
    ).sort_values(["certainty", "path"])
    turn = ordered.groupby(["outcome", "table"]).cumcount()
    chosen = ordered.assign(turn=turn).sort_values(["turn", "outcome", "table"]).head(count)
    return chosen.sort_values(["outcome", "turn", "table"])[[*scores]]


def _rank(table: str, results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    found = {
        detector: metrics
        for detector, result in results.items()
        if (metrics := result if table == MAIN else result["unseen"].get(table)) is not None
    }
    rows = [
        {key: found[detector][key] for key in COLUMNS if key in found[detector]}
        | {key: results[detector][key] for key in ("verdict",) if key in results[detector]}
        | {"table": table, "detector": detector}
        for detector in best_first(found)
    ]
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
