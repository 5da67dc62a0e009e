"""Pixel AUROC and AUPRO of a stream of anomaly maps of any range, in bounded memory."""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from scipy.special import logit

from blackswan.errors import InputError
from blackswan.evaluation.intervals import entries, jackknife_bounds
from blackswan.evaluation.metrics import area, thinned
from blackswan.evaluation.thresholds import finite_scores

FPR_LIMIT = 0.3  # of the per-region-overlap curve, as in the MVTec AD papers
WAITING = 1 << 19  # values that are gathered before they are counted
DISTINCT = 1 << 19  # values that are kept apart; only beyond them are neighbours counted as one
STEPS = 1 << 17  # shares of the pixels of a kind that are told apart then
GROUP_STEPS = 8  # of a group: an eighth of an e-fold of the share above, or below
SHARE = 0.5  # of the exact bound: one weak defect may hold most errors, and be in no test image
CHUNK = 1 << 20  # numbers of one batch of groups left out


class Counts(NamedTuple):
    """How often each value occurs."""

    values: np.ndarray  # (K,) float32, ascending, each once
    counts: np.ndarray  # (3, K): normal pixels, anomalous pixels, overlap with the regions


class PixelMetrics:
    """Pixel AUROC and AUPRO of a stream of anomaly maps; memory grows with groups, not images.

    Every distinct value is counted on its own, so up to DISTINCT of them the metrics are exact,
    whatever their range. Beyond, neighbours count as ties while they share the STEPS-th part of the
    pixels of each kind seen so far: AUROC then moves by less than 1e-5, AUPRO by 3e-5, each time
    half a million more values have come. That takes 30 MB, and thrice as much while they are
    sorted. For the interval every group keeps some hundred values, close together in both tails, of
    16 bytes each (never above 30 kB). An anomalous image without a mask must not be added.
    """

    def __init__(self) -> None:
        self._total = Counts(np.zeros(0, np.float32), np.zeros((3, 0)))
        self._waiting: list[Counts] = []
        self._groups: dict[str, Counts] = {}
        self._images = 0

    def add(
        self,
        anomaly_map: np.ndarray,
        mask: np.ndarray,
        group: str,
        counts: np.ndarray | None = None,
    ) -> None:
        """Count one float32 map (H, W) and its bool mask (H, W), all False where it is normal.

        Pixels outside of `counts`, bool (H, W), are left out. Raises InputError where the map is
        not finite or the mask has another size.
        """
        if anomaly_map.shape != mask.shape:
            raise InputError(
                f"the mask of image {self._images} is {mask.shape} and its anomaly map "
                f"{anomaly_map.shape}; mend the mask so that it fits its image"
            )
        values = finite_scores(anomaly_map.ravel(), f"anomaly map of image {self._images}")
        name = group or f"\0{self._images}"
        of_group = [self._groups[name]] if name in self._groups else []
        for counted in _count(values.astype(np.float32), mask, counts):
            of_group.append(_merged_in_tails(counted, GROUP_STEPS))
            self._waiting.append(counted)
            if sum(len(each.values) for each in self._waiting) > WAITING:
                self._settle()
        few = _merged_in_tails(_sum(of_group), GROUP_STEPS)
        self._groups[name] = Counts(few.values, few.counts.astype(np.float32))
        self._images += 1

    def compute(self) -> dict[str, float]:
        """Return pixel_auroc and pixel_aupro with intervals; {} where a class of pixels is missing.

        AUPRO: overlap with each 8-connected region of the masks, averaged over the regions of all
        images, integrated over false positive rates up to 0.3 and divided by 0.3, with linear
        interpolation at the limit (Bergmann et al., IJCV 2021). `n_pixel_groups` is the number of
        groups that the intervals rest on: those with anomalous pixels, or those with normal ones if
        they are fewer. There is no interval at 1: what few groups say of the next one has no exact
        bound, for their pixels are not independent pairs.
        """
        if not self._defined():
            return {}
        exact = _pixel_areas(_descend(self._total.counts))
        left_out = self._left_out()
        present = np.array([each.counts[:2].any(axis=1) for each in self._groups.values()])
        found: dict[str, float] = {"n_pixel_groups": int(present.sum(axis=0).min())}
        for row, name in enumerate(("pixel_auroc", "pixel_aupro")):
            value = float(exact[row])
            bounds = jackknife_bounds(value, left_out[row], int(found["n_pixel_groups"]), SHARE)
            found |= entries(name, value, bounds)
        return found

    def pro_points(self) -> pd.DataFrame:
        """Return threshold, false_positive_rate and per_region_overlap up to the rate of 0.3.

        Flagged is `score >= threshold`. No rows where a class of pixels is missing.
        """
        columns = ["threshold", "false_positive_rate", "per_region_overlap"]
        if not self._defined():
            return pd.DataFrame(columns=columns, dtype=np.float64)
        counts = _descend(self._total.counts)
        false, overlap = (np.append(0, counts[kind]) / counts[kind][-1] for kind in (0, 2))
        last = int(np.searchsorted(false, FPR_LIMIT))  # the first point at the limit or beyond it
        end = np.interp(FPR_LIMIT, false[last - 1 : last + 1], overlap[last - 1 : last + 1])
        false, overlap = np.append(false[:last], FPR_LIMIT), np.append(overlap[:last], end)
        values = self._total.values[::-1].astype(np.float64)
        above = np.nextafter(values[0], np.inf)  # where nothing is flagged
        curve = np.stack([np.append(above, values)[: last + 1], false, overlap], axis=1)
        return pd.DataFrame(curve[thinned(false, overlap)], columns=columns)

    def _settle(self) -> None:
        """Count what waits."""
        if not self._waiting:
            return
        total = _sum([self._total, *self._waiting])
        self._total = total if len(total.values) <= DISTINCT else _merged_evenly(total, STEPS)
        self._waiting = []

    def _defined(self) -> bool:
        self._settle()
        return bool(self._total.counts[:2].any(axis=1).all())

    def _left_out(self) -> np.ndarray:
        """Return AUROC and AUPRO without each group, (2, G), NaN where a class is gone.

        They are found on the coarse counts of the groups and moved by what the coarse counts of all
        groups are off.
        """
        groups = [self._groups[name] for name in sorted(self._groups)]
        grid = _merged_in_tails(self._total, 4 * GROUP_STEPS).values
        coarse = np.zeros((3, len(grid)))
        for group in groups:
            coarse += _on(grid, group)
        rows, areas = max(1, CHUNK // len(grid)), []
        for start in range(0, len(groups), rows):
            table = np.stack([_on(grid, group) for group in groups[start : start + rows]], axis=1)
            with np.errstate(invalid="ignore"):  # 0 of 0 of a class that is gone
                areas.append(_pixel_areas(_descend(coarse[:, None] - table)))
        shift = _pixel_areas(_descend(self._total.counts)) - _pixel_areas(_descend(coarse))
        return np.clip(np.concatenate(areas, axis=1) + shift[:, None], 0, 1)


def _count(values: np.ndarray, mask: np.ndarray, counts_at: np.ndarray | None) -> Iterator[Counts]:
    """Yield counts of the values of one map (H * W,), normal and anomalous pixels apart, in pieces.

    What is not sorted with its weights takes a tenth of the time, and most pixels have none.
    """
    values = values + np.float32(0)  # -0.0 ties with 0.0
    if counts_at is not None:
        mask = mask & counts_at
    inside = mask.ravel().astype(bool)
    outside = ~inside if counts_at is None else counts_at.ravel() & ~inside
    normal, anomalous = values[outside], values[inside]
    for start in range(0, len(normal), WAITING):
        distinct, counts = np.unique(normal[start : start + WAITING], return_counts=True)
        yield Counts(distinct, np.stack([counts, 0 * counts, 0 * counts]).astype(np.float64))
    regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1].ravel()
    overlap = (1 / np.bincount(regions))[regions[inside]] if inside.any() else np.zeros(0)
    for start in range(0, len(anomalous), WAITING):
        weights = overlap[start : start + WAITING]
        counts = np.stack([np.zeros_like(weights), np.ones_like(weights), weights])
        yield _sorted(anomalous[start : start + WAITING], counts)


def _sorted(values: np.ndarray, counts: np.ndarray) -> Counts:
    """Sort the values and count equal ones together."""
    order = np.argsort(values)
    values = values[order]
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    return Counts(values[starts], np.add.reduceat(counts[:, order], starts, axis=1))


def _sum(parts: list[Counts]) -> Counts:
    return _sorted(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.counts for part in parts], axis=1),
    )


def _merged_evenly(counted: Counts, steps: int) -> Counts:
    """Count neighbours together that lie in the same of equal shares of every kind of pixel."""
    return _merged(counted, np.floor(steps * _shares(counted.counts)))


def _merged_in_tails(counted: Counts, steps: int) -> Counts:
    """Count neighbours together by equal steps of the logit of their share: tails stay fine."""
    return _merged(counted, np.floor(steps * logit(_shares(counted.counts))))


def _shares(counts: np.ndarray) -> np.ndarray:
    """Return which share of each kind of pixel that occurs lies below the middle of each value."""
    counts = counts[counts.any(axis=1)].astype(np.float64)
    middle = np.cumsum(counts, axis=1) - counts / 2
    return np.clip(middle / counts.sum(axis=1, keepdims=True), 1e-12, 1 - 1e-12)


def _merged(counted: Counts, steps: np.ndarray) -> Counts:
    """Count neighbours with equal `steps` (kinds, K) together, at the middle one of their values.

    At the lowest or the highest, what was merged would drift against what is yet to come.
    """
    changes = (np.diff(steps, axis=1) != 0).any(axis=0)
    starts = np.flatnonzero(np.append(True, changes))
    middle = (starts + np.append(starts[1:], len(counted.values)) - 1) // 2
    return Counts(counted.values[middle], np.add.reduceat(counted.counts, starts, axis=1))


def _on(grid: np.ndarray, counted: Counts) -> np.ndarray:
    """Return the counts (3, K) at the values of `grid` (K,), each at the one next below, if any."""
    place = np.maximum(np.searchsorted(grid, counted.values, side="right") - 1, 0)
    return np.stack([np.bincount(place, kind, len(grid)) for kind in counted.counts])


def _descend(counts: np.ndarray) -> np.ndarray:
    """Return the counts (..., K) summed from the highest value down."""
    return np.cumsum(counts[..., ::-1], axis=-1)


def _pixel_areas(counts: np.ndarray) -> np.ndarray:
    """Return AUROC and AUPRO, (2, ...), of cumulated counts (3, ..., K)."""
    return np.stack([area(counts[0], counts[1]), area(counts[0], counts[2], FPR_LIMIT)])
