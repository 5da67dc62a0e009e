"""A detector set anew for a world that has moved, from images that a person found to be normal.

Nothing is fitted: only threshold, p-values and the scale of the colours come from the new scores,
by the same conformal rule (evaluation/thresholds.py), and so does what they promise: of images like
the new normal ones at most alpha are flagged. What the detector has learnt stays, and with it what
it can no longer tell apart: `drift_rates` shows false alarms and recall at both thresholds.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from blackswan.drift.simulation import STEP
from blackswan.errors import InputError
from blackswan.evaluation.intervals import exact_bounds
from blackswan.evaluation.model import FACTS, FITTED, NORMALS, Model, Scale, fingerprint, load, save
from blackswan.evaluation.thresholds import conformal_threshold, finite_scores
from blackswan.outputs import replace_folder, write_json

PROVENANCE = "recalibration.json"  # in the folder of a model: what its threshold comes from


@dataclass(frozen=True)
class Confirmed:
    """What a detector says of images that a person found to be normal."""

    image_scores: np.ndarray  # (N,)
    map_peaks: np.ndarray  # (N,)
    sha256: str  # of the images


def needed(alpha: float) -> int:
    """Return the fewest normal images that support `alpha`."""
    return math.ceil(1 / alpha - 1e-9) - 1


def check_normals(sizes: list[tuple[int, int]], alpha: float, where: str) -> None:
    """Raise InputError where images, by height and width, are too few or of several cameras."""
    if len(sizes) < needed(alpha):
        raise InputError(
            f"{where} holds {len(sizes)} normal images and alpha = {alpha:g} needs "
            f"{needed(alpha)}; add some"
        )
    if len(kinds := sorted({*sizes})) > 1:
        (height, width), (other_height, other_width) = kinds[0], kinds[-1]
        raise InputError(
            f"{where} holds images of {width} x {height} and of {other_width} x {other_height} "
            "pixels; name a folder with those of one camera"
        )


def recalibrated(model: Model, found: Confirmed) -> Model:
    """Return `model` with threshold, p-values and colours of the confirmed normal images.

    Raises InputError where they are too few for alpha, or all score the same.
    """
    facts = model.facts
    scores = finite_scores(found.image_scores, "confirmed normal images")
    if np.ptp(scores) == 0 < len(scores) - 1:
        raise InputError(
            f"all {len(scores)} normal images score {scores[0]:g}, as copies of one do; take "
            "images of different parts or times"
        )
    threshold = conformal_threshold(scores, facts.alpha)
    peak = conformal_threshold(found.map_peaks, facts.alpha)
    # How far typical anomalies reach above normal maps is known of the old ones alone.
    reach = facts.heatmap.top / facts.heatmap.threshold if facts.heatmap.threshold > 0 else 1.0
    changed = facts.model_copy(
        update={
            "threshold": threshold,
            "threshold_from": f"{len(scores)} confirmed normal images, alpha {facts.alpha:g}",
            "heatmap": Scale(threshold=peak, top=max(peak, peak * reach)),
        }
    )
    return Model(model.detector, changed, [scores], model.ignored)


def write(folder: Path, source: Path, model: Model, found: Confirmed) -> None:
    """Write a recalibrated `model` as a new folder; `source` is that of the model it was.

    Raises InputError where `folder` exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists; name another folder with --out, nothing is replaced")
    before = load(source).facts
    flagged = int((found.image_scores > before.threshold).sum())
    provenance: dict[str, Any] = {
        "from": fingerprint([source / FACTS, source / NORMALS]),
        "normal_images": len(found.image_scores),
        "normal_images_sha256": found.sha256,
        "flagged_before": flagged,
        "threshold": {"before": before.threshold, "after": model.facts.threshold},
        "threshold_from": {"before": before.threshold_from, "after": model.facts.threshold_from},
    }
    with replace_folder(folder) as partial:
        save(partial, source / FITTED, model.facts, model.normal_scores, model.ignored)
        write_json(partial / PROVENANCE, provenance)


def drift_rates(scores: pd.DataFrame, before: float, after: float) -> pd.DataFrame:
    """Return false alarms and recall at two thresholds, a line for each drift and severity.

    `scores` are those of simulate_drift; rates are NaN where a class has no image.
    """
    steps = scores[scores.kind == STEP]
    rows = []
    for (drift, severity), part in steps.groupby(["drift", "severity"], sort=False):
        row: dict[str, Any] = {"drift": drift, "severity": severity}
        for name, threshold in (("before", before), ("after", after)):
            flagged = part.image_score > threshold
            row[f"false_positive_rate_{name}"] = flagged[part.label == 0].mean()
            row[f"recall_{name}"] = flagged[part.label == 1].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def recentred(scores: np.ndarray, warm_up: int, normal_scores: np.ndarray) -> np.ndarray:
    """Return the scores (N,) of a stream, moved so that its first images score as normal ones do.

    The median of `warm_up` images, which a person takes for normal, is brought to that of the
    `normal_scores`; the threshold stays. Raises InputError for a stream that is shorter, or whose
    first images are copies: a camera that hangs shows nothing that is normal.
    """
    values = finite_scores(scores, "the stream")
    if not 2 <= warm_up <= len(values):
        raise InputError(
            f"a warm-up of {warm_up} images needs at least 2 and the stream has {len(values)}; "
            "choose a number between"
        )
    if np.ptp(values[:warm_up]) == 0:
        raise InputError(
            f"the first {warm_up} images of the stream all score {values[0]:g}, as copies do; "
            "see whether the camera hangs"
        )
    return values + (np.median(normal_scores) - np.median(values[:warm_up]))


def rate(flagged: np.ndarray) -> dict[str, float]:
    """Return the share of True and its exact 95 % interval."""
    share = float(np.mean(flagged))
    low, high = exact_bounds(share, len(flagged))
    return {"rate": share, "low": low, "high": high}
