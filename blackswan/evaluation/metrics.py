"""Image and pixel metrics with block-bootstrap intervals; what is undefined is absent, never zero.

The interval: groups (blocks of frames, the shots of one part) are drawn with replacement, all
images of a group together, and the 2.5 and 97.5 percentiles of the resampled metric are given. A
resample that lost a class is drawn again. Where a class comes from a single group there is no
interval, for resampling cannot vary it. At perfect separation every resample is perfect too and
the interval is [1, 1]: these images are separated, which does not promise that the next ones are.
An image with an empty group stands alone.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import pandas as pd

from blackswan.errors import InputError
from blackswan.evaluation.thresholds import finite_scores
from blackswan.seeds import generator

FPR_LIMIT = 0.3  # of the per-region-overlap curve, as in the MVTec AD papers
POINTS = 200  # of a curve, at most, are kept for plotting
CODES = 1 << 20  # sign, exponent and 11 bits of mantissa: 2048 steps an octave
COARSE = 7  # bits less for the histogram of one group: 16 steps an octave
CHUNK = 1 << 20  # numbers of one batch of resamples


def image_metrics(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    groups: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> dict[str, float]:
    """Return AUROC, AP, F1, the rates and the range of scores; flagged is `score > threshold`.

    labels (N,) 0 normal, 1 anomalous; scores (N,). Raises InputError where a score is not finite.
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

    order, ends = _ranking(values)
    names = [group or f"\0{position}" for position, group in enumerate(groups)]
    group = np.unique(names, return_inverse=True)[1]
    present = np.zeros((group.max() + 1, 2))
    np.add.at(present, (group, anomalous.astype(int)), 1)

    def measure(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # (R, N), best first
        true = np.cumsum(weights * anomalous[order], axis=1)[:, ends]
        false = np.cumsum(weights * ~anomalous[order], axis=1)[:, ends]
        return _area(false, true), _average_precision(false, true)

    auroc, precision = measure(np.ones((1, len(values))))
    draws = _draws(present, len(values), resamples, generator(seed, "bootstrap", "images"))
    drawn = [measure(weights[:, group[order]]) for weights in draws]
    metrics |= _interval("image_auroc", auroc[0], [area for area, _ in drawn])
    metrics |= _interval("image_ap", precision[0], [average for _, average in drawn])
    return metrics


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
            row["image_auroc"] = float(_area(*_cumulated(anomalous[chosen], values[chosen])))
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
    return pd.DataFrame(curve[_thinned(false, true)], columns=columns)


def precision_recall_points(labels: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Return threshold, recall and precision where images are flagged; no rows with one class."""
    anomalous, values = _checked(labels, scores)
    columns = ["threshold", "recall", "precision"]
    if anomalous.all() or not anomalous.any():
        return pd.DataFrame(columns=columns, dtype=np.float64)
    false, true = _cumulated(anomalous, values)
    recall, precision = true / true[-1], true / (true + false)
    curve = np.stack([_cuts(values)[1:], recall, precision], axis=1)
    return pd.DataFrame(curve[_thinned(-recall, precision)], columns=columns)


class PixelMetrics:
    """Pixel AUROC and AUPRO of a stream of anomaly maps; memory grows with groups, not images.

    Pixels are counted by the bits of their float32 distance from the median of the first map, cut
    to 20 bits: no range need be known, and the steps (2^-11 of the distance) are finest where
    normal pixels crowd. That takes 25 MB. Values in one step count as ties. For the bootstrap every
    group keeps counts in 16 steps an octave, 2 to 12 kB where measured (never above 213 kB: 8192
    codes of 26 bytes), and the interval is moved by the small difference between fine and coarse.
    An anomalous image without a mask must not be added.
    """

    def __init__(self) -> None:
        self._centre = 0.0
        self._counts = np.zeros((3, CODES))  # normal pixels, anomalous pixels, region overlap
        self._groups: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # coarse codes, their counts
        self._images = 0

    def add(self, anomaly_map: np.ndarray, mask: np.ndarray, group: str) -> None:
        """Count one float32 map (H, W) and its bool mask (H, W), all False where it is normal.

        Raises InputError where the map is not finite or the mask has another size.
        """
        if anomaly_map.shape != mask.shape:
            raise InputError(
                f"the mask of image {self._images} is {mask.shape} and its anomaly map "
                f"{anomaly_map.shape}; mend the mask so that it fits its image"
            )
        values = finite_scores(anomaly_map.ravel(), f"anomaly map of image {self._images}")
        if self._images == 0:
            self._centre = float(np.median(values))
        codes, inside = _codes(values - self._centre), mask.ravel().astype(bool)
        regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1].ravel()[inside]
        normal, anomalous = codes[~inside], codes[inside]
        overlap = 1 / np.bincount(regions)[regions] if len(regions) else np.zeros(0)
        np.add.at(self._counts[0], normal, 1.0)  # 1.0, not 1: without a cast it is 30x faster
        np.add.at(self._counts[1], anomalous, 1.0)
        np.add.at(self._counts[2], anomalous, overlap)
        coarse = np.zeros((3, CODES >> COARSE))
        np.add.at(coarse[0], normal >> COARSE, 1.0)
        np.add.at(coarse[1], anomalous >> COARSE, 1.0)
        np.add.at(coarse[2], anomalous >> COARSE, overlap)
        name = group or f"\0{self._images}"
        if name in self._groups:
            used, counts = self._groups[name]
            coarse[:, used] += counts
        used = np.flatnonzero(coarse.any(axis=0)).astype(np.uint16)
        self._groups[name] = used, coarse[:, used]
        self._images += 1

    def compute(self, *, resamples: int, seed: int) -> dict[str, float]:
        """Return pixel_auroc and pixel_aupro with intervals; {} where a class of pixels is missing.

        AUPRO: overlap with each 8-connected region of the masks, averaged over the regions of all
        images, integrated over false positive rates up to 0.3 and divided by 0.3, with linear
        interpolation at the limit (Bergmann et al., IJCV 2021).
        """
        if not self._defined():
            return {}
        groups = self._by_group()
        exact = _pixel_areas(self._cumulated()[1])
        shift = (exact - _pixel_areas(_descend(groups.sum(axis=1))))[:, None]
        present, rng = groups[:2].sum(axis=-1).T, generator(seed, "bootstrap", "pixels")
        drawn = [
            np.clip(_pixel_areas(_descend(weights @ groups)) + shift, 0, 1)
            for weights in _draws(present, groups.shape[-1], resamples, rng)
        ]  # each (2, r)
        auroc = _interval("pixel_auroc", exact[0], [areas[0] for areas in drawn])
        return auroc | _interval("pixel_aupro", exact[1], [areas[1] for areas in drawn])

    def pro_points(self) -> pd.DataFrame:
        """Return threshold, false_positive_rate and per_region_overlap up to the rate of 0.3.

        A threshold is the lower edge of a step. No rows where a class of pixels is missing.
        """
        columns = ["threshold", "false_positive_rate", "per_region_overlap"]
        if not self._defined():
            return pd.DataFrame(columns=columns, dtype=np.float64)
        codes, counts = self._cumulated()
        false, overlap = (np.append(0, counts[kind]) / counts[kind][-1] for kind in (0, 2))
        last = int(np.searchsorted(false, FPR_LIMIT))  # the first point at the limit or beyond it
        end = np.interp(FPR_LIMIT, false[last - 1 : last + 1], overlap[last - 1 : last + 1])
        false, overlap = np.append(false[:last], FPR_LIMIT), np.append(overlap[:last], end)
        edges = _edges(np.append(codes[0] + 1, codes)[: last + 1]) + self._centre
        curve = np.stack([edges, false, overlap], axis=1)
        return pd.DataFrame(curve[_thinned(false, overlap)], columns=columns)

    def _defined(self) -> bool:
        return bool(self._counts[:2].any(axis=1).all())

    def _cumulated(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes in use, highest first, and the counts (3, codes) down to each."""
        codes = np.flatnonzero(self._counts[:2].any(axis=0))[::-1]
        return codes, np.cumsum(self._counts[:, codes], axis=-1)

    def _by_group(self) -> np.ndarray:
        """Return the coarse counts (3, G, codes), lowest code first."""
        codes = np.unique(np.concatenate([used for used, _ in self._groups.values()]))
        table = np.zeros((3, len(self._groups), len(codes)))
        for row, name in enumerate(sorted(self._groups)):
            used, counts = self._groups[name]
            table[:, row, np.searchsorted(codes, used)] = counts
        return table


def _codes(offsets: np.ndarray) -> np.ndarray:
    """Return integers below CODES that grow with the float: its bits, flipped and cut to 20."""
    bits = (offsets + 0.0).astype(np.float32).view(np.uint32)  # + 0.0: -0.0 ties with 0.0
    return (np.where(bits >> 31, ~bits, bits | 0x80000000) >> 12).astype(np.intp)


def _edges(codes: np.ndarray) -> np.ndarray:
    """Return the smallest float of each code."""
    bits = codes.astype(np.uint32) << 12
    floats = np.where(bits >> 31, bits & 0x7FFFFFFF, ~bits).view(np.float32)
    return floats.astype(np.float64)


def _descend(counts: np.ndarray) -> np.ndarray:
    """Return the counts (..., K) summed from the highest code down."""
    return np.cumsum(counts[..., ::-1], axis=-1)


def _pixel_areas(counts: np.ndarray) -> np.ndarray:
    """Return AUROC and AUPRO, (2, ...), of cumulated counts (3, ..., K)."""
    return np.stack([_area(counts[0], counts[1]), _area(counts[0], counts[2], FPR_LIMIT)])


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


def _area(false: np.ndarray, true: np.ndarray, limit: float = 1.0) -> np.ndarray:
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
    precision = np.divide(true, flagged, out=np.zeros_like(flagged), where=flagged > 0)
    average: np.ndarray = (np.diff(true, prepend=0) * precision).sum(axis=-1) / true[..., -1]
    return average


def _draws(
    present: np.ndarray, width: int, resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield batches (r, G) of how often each group is drawn; `present` (G, 2) counts its classes.

    `width` is how many numbers one resample will need beside its groups: it keeps batches small.
    """
    size = len(present)
    if ((present > 0).sum(axis=0) < 2).any():
        return
    while resamples > 0:
        rows = min(resamples, max(1, CHUNK // max(size, width)))
        drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        weights = counts[(counts @ present > 0).all(axis=1)].astype(np.float64)
        resamples -= len(weights)
        yield weights


def _interval(name: str, value: float, drawn: list[np.ndarray]) -> dict[str, float]:
    if not drawn:
        return {name: float(value)}
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975])
    return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}


def _thinned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return at most POINTS places, even along the curve, with both ends and the best corner."""
    if len(x) <= POINTS:
        return np.arange(len(x))
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    even = np.searchsorted(length, np.linspace(0, length[-1], POINTS - 2))
    return np.unique([*even, np.argmax(y - x), len(x) - 1])
