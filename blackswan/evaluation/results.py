"""What is written of a scored test split: its metrics and its curves."""

from pathlib import Path
from typing import Any

import pandas as pd

from blackswan.evaluation import metrics
from blackswan.evaluation.ranking import MAIN
from blackswan.evaluation.scoring import ScoredSplit


def measure(found: ScoredSplit, threshold: float, bins: int) -> dict[str, Any]:
    """Return the metrics of the main table, with those of the unseen generators and each defect."""
    tables: dict[str, Any] = {}
    for name, pixels in found.pixels.items():
        images = found.images[(found.images.table == name) | (found.images.label == 0)]
        labels, scores = images.label.to_numpy(), images.image_score.to_numpy()
        tables[name] = metrics.image_metrics(labels, scores, threshold, images.group)
        tables[name] |= pixels.compute()
        if found.probabilities:
            error = metrics.expected_calibration_error(labels, scores, bins)
            tables[name]["expected_calibration_error"] = error
    main = found.images[found.images.table == MAIN]
    defects = metrics.defect_table(
        main.defect.tolist(), main.label.to_numpy(), main.image_score.to_numpy(), threshold
    )
    return {**tables.pop(MAIN), "unseen": tables, "defects": defects}


def write_curves(found: ScoredSplit, bins: int, folder: Path) -> None:
    """Write the ROC, precision-recall, PRO and reliability curves of the main table.

    A curve that is not defined has no rows: DVC expects each of them.
    """
    main = found.images[found.images.table == MAIN]
    labels, scores = main.label.to_numpy(), main.image_score.to_numpy()
    curves = {
        "roc": metrics.roc_points(labels, scores),
        "precision_recall": metrics.precision_recall_points(labels, scores),
        "pro": found.pixels[MAIN].pro_points(),
        "reliability": metrics.reliability_curve(labels, scores, bins)
        if found.probabilities
        else pd.DataFrame(columns=["low", "high", "n", "probability", "frequency"]),
    }
    for name, points in curves.items():
        points.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
