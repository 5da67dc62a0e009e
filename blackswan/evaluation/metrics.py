"""Metrics of images, with intervals (see intervals.py); what is undefined is absent, never zero.

An image with an empty group stands alone.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from blackswan.errors import InputError
from blackswan.evaluation.intervals import auroc_bounds, entries, group_sizes, jackknife_bounds
from blackswan.evaluation.thresholds import finite_scores

POINTS = 200  # of a curve, at most, are kept for plotting
LEFT_OUT = 500  # rankings at most for the interval of AP: of more groups, some go together
CHUNK = 1 << 20  # numbers of one batch of rankings


def image_metrics(
    labels: np.ndarray, scores: np.ndarray, threshold: float, groups: Sequence[str]
) -> dict[str, float]:
    """Return AUROC, AP, F1, the rates and the range of scores; flagged is `score > threshold`.

    labels (N,) 0 normal, 1 anomalous; scores (N,). `n_groups` is the number of groups with normal
    images or of those with anomalous ones, whichever is smaller: on it the intervals rest. AP has
    none where it is 1, for how far the next images could lower it depends on their number of
    anomalies. Raises InputError where a score is not finite.
    """
    anomalous, values = _checked(labels, scores)
    flagged = values > threshold
    metrics: dict[str, float] = {
        "n_normal": int((~anomalous).sum()),
        "n_anomalous": int(anomalous.sum()),
        "threshold": float(threshold),
    }
    if metrics["n_normal"]:
        metrics["false_positive_rate"] = float(flagged[~anomalous].mean())
        metrics["normal_score_mean"] = float(values[~anomalous].mean())
        metrics["normal_score_max"] = float(values[~anomalous].max())
    if metrics["n_anomalous"]:
        metrics["recall"] = float(flagged[anomalous].mean())
        metrics["anomalous_score_min"] = float(values[anomalous].min())
    if not (metrics["n_normal"] and metrics["n_anomalous"]):
        return metrics
    metrics["image_f1"] = float(2 * (flagged & anomalous).sum() / (flagged.sum() + anomalous.sum()))
    names = [group or f"\0{position}" for position, group in enumerate(groups)]
    group = np.unique(names, return_inverse=True)[1]
    false, true = _cumulated(anomalous, values)
    auroc, precision = float(area(false, true)), float(_average_precision(false, true))
    metrics["n_groups"] = int(np.count_nonzero(group_sizes(anomalous, group), axis=1).min())
    metrics |= entries("image_auroc", auroc, auroc_bounds(anomalous, values, group))
    left_out = _precision_left_out(anomalous, values, group)
    bounds = jackknife_bounds(precision, left_out, int(metrics["n_groups"]))
    return metrics | entries("image_ap", precision, bounds)


def defect_table(
    defects: Sequence[str], labels: np.ndarray, scores: np.ndarray, threshold: float
) -> list[dict[str, float | str]]:
    """Return n, recall at the threshold and image_auroc against all normal images for each defect.

    Sorted by defect; an anomalous image without a defect counts as `unknown`.
    """
    anomalous, values = _checked(labels, scores)
    names = np.array([defect or "unknown" for defect in defects], dtype=object)
    rows: list[dict[str, float | str]] = []
    for defect in sorted(set(names[anomalous])):
        of_defect = anomalous & (names == defect)
        recall = float((values[of_defect] > threshold).mean())
        row = {"defect": defect, "n": int(of_defect.sum()), "recall": recall}
        if not anomalous.all():
            chosen = of_defect | ~anomalous
            row["image_auroc"] = float(area(*_cumulated(anomalous[chosen], values[chosen])))
        rows.append(row)
    return rows


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> float:
    """Return the mean gap between probability and frequency, bins of equal width (Naeini 2015)."""
    curve = reliability_curve(labels, probabilities, bins)
    gaps = (curve["frequency"] - curve["probability"]).abs()
    return float((gaps * curve["n"]).sum() / curve["n"].sum())


def reliability_curve(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 10
) -> pd.DataFrame:
    """Return low, high, n, mean probability and frequency of anomalous images of each bin in use.

    Bins are [low, high), the last one closed. Raises InputError where a score is no probability.
    """
    anomalous, values = _checked(labels, probabilities)
    if values.min() < 0 or values.max() > 1:
        raise InputError(
            f"calibration needs probabilities and the scores run from {values.min():g} to "
            f"{values.max():g}; leave it out for this detector"
        )
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    used = np.flatnonzero(count)
    return pd.DataFrame(
        {
            "low": edges[used],
            "high": edges[used + 1],
            "n": count[used],
            "probability": np.bincount(place, values)[used] / count[used],
            "frequency": np.bincount(place, anomalous)[used] / count[used],
        }
    )


def roc_points(labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Return threshold, false_positive_rate and recall of the ROC curve; no rows with one class."""
    anomalous, values = _checked(labels, scores)
    columns = ["threshold", "false_positive_rate", "recall"]
    if anomalous.all() or not anomalous.any():
        return pd.DataFrame(columns=columns, dtype=np.float64)
    false, true = (np.append(0, counts) / counts[-1] for counts in _cumulated(anomalous, values))
    curve = np.stack([_cuts(values), false, true], axis=1)
    return pd.DataFrame(curve[thinned(false, true)], columns=columns)


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Return threshold, recall and precision where images are flagged; no rows with one class."""
    anomalous, values = _checked(labels, scores)
    columns = ["threshold", "recall", "precision"]
    if anomalous.all() or not anomalous.any():
        return pd.DataFrame(columns=columns, dtype=np.float64)
    false, true = _cumulated(anomalous, values)
    recall, precision = true / true[-1], true / (true + false)
    curve = np.stack([_cuts(values)[1:], recall, precision], axis=1)
    return pd.DataFrame(curve[thinned(-recall, precision)], columns=columns)


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) == 0:
        raise InputError("there are no images to measure on; make the test split larger")
    if len(labels) != len(scores):
        raise InputError(f"{len(labels)} labels, {len(scores)} scores; score the same images again")
    return np.asarray(labels).astype(bool), finite_scores(scores, "test images")


def _ranking(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order from highest to lowest, and in it the last place of each distinct score."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))


def _cumulated(anomalous: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the false and true alarms down to each distinct score, highest first."""
    order, ends = _ranking(scores)
    return np.cumsum(~anomalous[order])[ends], np.cumsum(anomalous[order])[ends]


def _cuts(scores: np.ndarray) -> np.ndarray:
    """Return the thresholds of a curve of `score > threshold`: from none flagged to all."""
    distinct = np.unique(scores)[::-1]
    return np.append(distinct, distinct[-1] - max(1.0, abs(distinct[-1])))


def area(false: np.ndarray, true: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Return the area under the curve of counts (..., K) up to the rate `limit`, 1 at best.

    Both counts grow down the ranking; a tie is one slanted step (the trapezoid rule).
    """
    # In counts to the end, so that perfect separation is exactly 1.
    start, most = np.zeros((*false.shape[:-1], 1)), limit * false[..., -1:]
    x, y = (np.concatenate([start, counts], axis=-1) for counts in (false, true))
    width, rise = np.diff(x), np.diff(y)
    inside = np.clip(most - x[..., :-1], 0, width)
    part = np.divide(inside, width, out=np.zeros_like(width), where=width > 0)
    under = (inside * (y[..., :-1] + rise * part / 2)).sum(axis=-1)
    area: np.ndarray = under / (most[..., 0] * true[..., -1])
    return area


def _average_precision(false: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the mean precision over the steps of recall, as scikit-learn defines it."""
    flagged = false + true
    precision = np.divide(true, flagged, out=np.zeros(flagged.shape), where=flagged > 0)
    average: np.ndarray = (np.diff(true, prepend=0) * precision).sum(axis=-1) / true[..., -1]
    return average


def _precision_left_out(anomalous: np.ndarray, scores: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return AP without each group, (G,), the share of anomalous images held as it is.

    NaN where a class is gone.
    """
    order, ends = _ranking(scores)
    flawed, group = anomalous[order], group[order]
    if (size := group.max() + 1) > LEFT_OUT:  # dealt out so that both classes are in every share
        normal_only = np.bincount(group[flawed], minlength=size) == 0
        place = np.argsort(np.argsort(normal_only, kind="stable"), kind="stable")
        group, size = place[group] % LEFT_OUT, LEFT_OUT
    rows = max(1, CHUNK // len(order))
    averages = []
    for start in range(0, size, rows):
        kept = group != np.arange(start, min(start + rows, size))[:, None]
        counts = [np.cumsum(kept & chosen, axis=1)[:, ends] for chosen in (~flawed, flawed)]
        with np.errstate(invalid="ignore"):  # 0 of 0 of a class that is gone
            false, true = (
                count / count[:, -1:] * chosen.sum()
                for count, chosen in zip(counts, (~flawed, flawed), strict=True)
            )
        averages.append(_average_precision(false, true))
    return np.concatenate(averages)


def thinned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return at most POINTS places, even along the curve, with both ends and the best corner."""
    if len(x) <= POINTS:
        return np.arange(len(x))
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    even = np.searchsorted(length, np.linspace(0, length[-1], POINTS - 2))
    return np.unique([*even, np.argmax(y - x), len(x) - 1])
