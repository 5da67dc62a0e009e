"""What a detector makes of test images that drift: scores, and the table of them.

Normal and anomalous images drift alike, after they were cropped and scaled, and masks move along.
Beside the steps, in which all images drift by one severity, there is a ramp: the normal images as a
stream, in order of time, that drifts evenly from nothing to the highest severity.

Verdicts are those of evaluate_detector (evaluation/verdict.py): frames that were taken evenly from
a clip count by how far apart they lie in the clip. A step is one test of one severity at its
LEVEL. The ramp is looked at after each of its m images, each time at LEVEL / m (Bonferroni), so
that all looks together are wrong about a threshold that holds at most as often as one step is. As
flags follow one another the p-value falls by some 1 / alpha with each, so for m = 10 or 29 this
costs about one image of delay.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from blackswan.data.batches import of_one_size
from blackswan.data.dataset import Split, mask_of
from blackswan.data.images import decode_image
from blackswan.detectors.interface import Detector
from blackswan.drift.corruptions import HIGHEST, NAMES, SEVERITIES, corrupt, corrupt_mask
from blackswan.errors import InputError
from blackswan.evaluation.calibration import with_source
from blackswan.evaluation.ignoring import counted
from blackswan.evaluation.metrics import image_metrics
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.evaluation.verdict import LEVEL, VOID, judge, places

STEP, RAMP = "step", "ramp"
MEASURES = ("image_auroc", "pixel_auroc", "recall", "false_positive_rate")
BOUNDS = ("image_auroc_low", "image_auroc_high")
COLUMNS = [
    "drift", "kind", "severity", *MEASURES, *BOUNDS, "n_normal", "n_anomalous", "verdict",
    "breaks_at",
]  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """Images in memory, a mask is None where unknown.

    facts has path, label, source, group, timestamp_s and place, that of a normal frame among all
    normal frames of its video.
    """

    facts: pd.DataFrame
    images: list[np.ndarray]
    masks: list[np.ndarray | None]

    @property
    def normal(self) -> "Sample":
        """The normal images, in order of time."""
        chosen = np.flatnonzero(self.facts.label == 0)
        chosen = chosen[np.argsort(self.facts.timestamp_s.iloc[chosen], kind="stable")]
        return Sample(
            self.facts.iloc[chosen].reset_index(drop=True),
            [self.images[i] for i in chosen],
            [self.masks[i] for i in chosen],
        )


def draw(split: Split, most: int | None) -> Sample:
    """Read at most so many normal and so many anomalous images, evenly spread over the split.

    Raises InputError where it has no normal ones.
    """
    facts = split.facts
    chosen: list[int] = []
    for label in (0, 1):
        found = np.flatnonzero(facts.label == label)
        count = min(len(found), most or len(found))
        chosen += found[np.linspace(0, len(found) - 1, count).astype(int)].tolist()
    if not chosen or facts.label[chosen[0]] != 0:
        raise InputError(f"the {split.name} split has no normal image that could drift; add some")
    chosen.sort()
    rows = [split[index] for index in chosen]
    images = [decode_image(row.image) for row in rows]
    masks = [mask_of(row, image.shape[:2]) for row, image in zip(rows, images, strict=True)]
    columns = ["path", "label", "defect", "group", "timestamp_s"]
    facts = with_source(facts[columns])
    facts["place"] = places(facts[facts.label == 0])
    return Sample(facts.iloc[chosen].reset_index(drop=True), images, masks)


def simulate(
    detector: Detector,
    sample: Sample,
    *,
    seed: int,
    batch_size: int,
    names: Sequence[str] = NAMES,
) -> Iterator[tuple[pd.DataFrame, dict[str, float]]]:
    """Yield the scores of every drift and severity, and the pixel metrics of that step.

    The scores are lines of the facts with drift, kind, severity and image_score; what has not
    drifted is scored once, and called `none`.
    """
    still = np.zeros(len(sample.images))
    yield _score(detector, sample, names[0], still, seed, batch_size, drift="none")
    for name in names:
        for severity in SEVERITIES[1:]:
            yield _score(detector, sample, name, still + severity, seed, batch_size)
        stream = sample.normal
        ramp = np.linspace(0, HIGHEST, len(stream.images))
        yield _score(detector, stream, name, ramp, seed, batch_size, kind=RAMP)


def _score(
    detector: Detector,
    sample: Sample,
    name: str,
    severities: np.ndarray,
    seed: int,
    batch_size: int,
    *,
    drift: str = "",
    kind: str = STEP,
) -> tuple[pd.DataFrame, dict[str, float]]:
    image_scores, pixels = [], PixelMetrics()
    drifted = (
        (corrupt(image, name, severity, seed), mask, severity, group)
        for image, mask, severity, group in zip(
            sample.images, sample.masks, severities, sample.facts.group, strict=True
        )
    )
    for batch in of_one_size(drifted, batch_size, lambda item: item[0]):
        found = detector.score([item[0] for item in batch])
        image_scores += found.image_scores.tolist()
        counts = counted(detector, found.size)
        if kind == STEP:
            for (_, mask, severity, group), peaks in zip(batch, found.anomaly_maps, strict=True):
                if mask is not None:
                    moved = corrupt_mask(mask, name, severity, seed)
                    pixels.add(peaks, moved, group, counts)
    facts = sample.facts.assign(
        drift=drift or name, kind=kind, severity=severities, image_score=image_scores
    )
    return facts, pixels.compute()


def table_of(
    scores: pd.DataFrame,
    pixels: list[dict[str, Any]],
    calibration: pd.DataFrame,
    threshold: float,
    alpha: float,
) -> pd.DataFrame:
    """Return the table of `scores`, with COLUMNS: a line for each drift, kind and severity.

    `pixels` has drift, severity and pixel_auroc of the steps; `calibration` is what the threshold
    comes from, as `judge` takes it. `breaks_at` is the lowest severity at which an exact test says
    that the promise on false alarms is void; of a ramp, the severity that the stream had reached
    when a look at it first said so, at LEVEL divided by the number of looks.
    """
    known = {(each["drift"], each["severity"]): each.get("pixel_auroc") for each in pixels}
    rows = []
    for (drift, kind), part in scores.groupby(["drift", "kind"], sort=False):
        if drift == "none":
            continue
        if kind == RAMP:
            rows.append(_ramp(drift, part, calibration, threshold, alpha))
            continue
        none = scores[scores.drift == "none"]
        steps = {0.0: none} | {float(s): rows for s, rows in part.groupby("severity")}
        lines = [
            _line(drift, severity, step, calibration, threshold, alpha)
            | {"pixel_auroc": known.get((drift if severity else "none", severity))}
            for severity, step in steps.items()
        ]
        void = [line["severity"] for line in lines if line["verdict"] == VOID]
        rows += [line | {"breaks_at": min(void, default=None)} for line in lines]
    return pd.DataFrame(rows, columns=COLUMNS)


def _line(
    drift: str,
    severity: float,
    step: pd.DataFrame,
    calibration: pd.DataFrame,
    threshold: float,
    alpha: float,
) -> dict[str, Any]:
    found = image_metrics(
        step.label.to_numpy(), step.image_score.to_numpy(), threshold, step.group.tolist()
    )
    normals = step[step.label == 0]
    return {
        "drift": drift, "kind": STEP, "severity": severity,
        **{key: found[key] for key in COLUMNS if key in found},
        "verdict": _verdict(normals, calibration, threshold, alpha),
    }  # fmt: skip


def _ramp(
    drift: str, stream: pd.DataFrame, calibration: pd.DataFrame, threshold: float, alpha: float
) -> dict[str, Any]:
    looks = len(stream)
    verdicts = [
        _verdict(stream.iloc[: count + 1], calibration, threshold, alpha, LEVEL / looks)
        for count in range(looks)
    ]
    broken = verdicts.index(VOID) if VOID in verdicts else None
    return {
        "drift": drift, "kind": RAMP, "severity": float(HIGHEST),
        "false_positive_rate": float((stream.image_score > threshold).mean()),
        "n_normal": looks, "n_anomalous": 0, "verdict": verdicts[-1],
        "breaks_at": None if broken is None else float(stream.severity.iloc[broken]),
    }  # fmt: skip


def _verdict(
    normals: pd.DataFrame,
    calibration: pd.DataFrame,
    threshold: float,
    alpha: float,
    level: float = LEVEL,
) -> str:
    judged = normals.assign(flagged=normals.image_score > threshold)
    return judge(calibration, judged, alpha, level).verdict
