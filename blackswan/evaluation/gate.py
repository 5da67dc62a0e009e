"""What a model must show on test images before it takes the place of the one in use.

Two models that scored the same images are compared by a paired bootstrap of groups: their errors go
together, so the difference of their AUROC scatters less than either (Efron and Tibshirani 1993,
chapter 8).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from blackswan.evaluation.intervals import exact_bounds
from blackswan.evaluation.verdict import VOID
from blackswan.params import Section
from blackswan.seeds import generator

DRAWS = 2000
LEVEL = 0.95  # one-sided, of the bound of a difference
SCORED = ["sha256", "label", "group", "image_score"]  # columns of what `compare` takes


Limit = Annotated[float, Field(ge=0, le=1)] | None


class Params(Section):
    """The conditions, all of which must hold; one that is null is not asked."""

    image_auroc_low: Limit  # lower bound of its interval, at least
    false_positive_rate: Limit  # at most
    expected_calibration_error: Limit  # of probabilities, at most
    worse_by: Limit  # image AUROC than the champion, at most, with LEVEL


@dataclass(frozen=True)
class Condition:
    """One condition and what was found; `by` is how much is missing, 0 where it holds."""

    name: str
    found: str
    by: float
    holds: bool

    def __str__(self) -> str:
        short = f", short by {self.by:.3g}" if self.by else ""
        return f"{'holds' if self.holds else 'fails'}: {self.name}: {self.found}{short}"


@dataclass(frozen=True)
class Difference:
    """Image AUROC of one model less that of another on the same images."""

    estimate: float
    low: float  # one-sided bound at LEVEL


def conditions(
    metrics: Mapping[str, Any], params: Params, against: Difference | str | None
) -> list[Condition]:
    """Judge the metrics of a detector, as metrics/detectors has them.

    `against` is the difference from the champion, why there is none to be had, or None where there
    is no champion.
    """
    found = [_verdict(metrics["threshold_verdict"])]
    if params.image_auroc_low is not None:
        found.append(_auroc(metrics, params.image_auroc_low))
    if params.false_positive_rate is not None:
        found.append(_false_alarms(metrics, params.false_positive_rate))
    error, most = "expected_calibration_error", params.expected_calibration_error
    if error in metrics and most is not None:
        found.append(_at_most(error, metrics[error], most))
    if against is not None and params.worse_by is not None:
        found.append(_not_worse(against, params.worse_by))
    return found


def compare(new: pd.DataFrame, old: pd.DataFrame, seed: int = 0) -> Difference | str:
    """Compare two tables of SCORED, one line an image; say why where images differ."""
    new, old = (table.assign(copy=table.groupby("sha256").cumcount()) for table in (new, old))
    keys = ["sha256", "copy"]  # of images that are equal
    paired = new.merge(old[[*keys, "image_score"]], on=keys, suffixes=("", "_old"))
    if not len(new) == len(old) == len(paired):
        shared = len(set(new.sha256) & set(old.sha256))
        return f"it was tested on other images ({shared} of {len(new)} are the same)"
    labels = paired.label.to_numpy() == 1
    if labels.all() or not labels.any():
        return "its test images are all of one label"
    group, groups = pd.factorize(paired.group)
    rng = generator(seed, "gate")
    scores = [paired.image_score.to_numpy(), paired.image_score_old.to_numpy()]

    def difference(weights: np.ndarray) -> float:
        ours, theirs = (weighted_auroc(labels, part, weights) for part in scores)
        return ours - theirs

    drawn = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(0, len(groups), len(groups)), minlength=len(groups))
        weights = times[group].astype(float)
        if weights[labels].any() and weights[~labels].any():
            drawn.append(difference(weights))
    low = float(np.quantile(drawn, 1 - LEVEL)) if drawn else -1.0
    return Difference(difference(np.ones(len(labels))), low)


def weighted_auroc(anomalous: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Return the AUROC of images (N,) that count as often as their weights say; a tie is half."""
    rank = np.unique(scores, return_inverse=True)[1]
    positive = np.bincount(rank, weights * anomalous)
    negative = np.bincount(rank, weights * ~anomalous)
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / (positive.sum() * negative.sum()))


def _auroc(metrics: Mapping[str, Any], least: float) -> Condition:
    name = f"image_auroc_low at least {least:g}"
    if "image_auroc_low" not in metrics:  # too few groups
        said = "too few independent test images for an interval; add some, of both labels"
        return Condition(name, said, 0, holds=False)
    low = metrics["image_auroc_low"]
    said = f"{low:.3f}, of {metrics['image_auroc']:.3f}"
    return Condition(name, said, max(0, least - low), low >= least)


def _false_alarms(metrics: Mapping[str, Any], most: float) -> Condition:
    images = metrics["threshold_verdict"]["images"]
    if "false_positive_rate" not in metrics or not images:
        return Condition("false_positive_rate", "no normal test image to tell it", 0, holds=False)
    rate = metrics["false_positive_rate"]
    low, high = exact_bounds(rate, images)
    condition = _at_most("false_positive_rate", rate, most)
    said = f"{condition.found} [{low:.3f}, {high:.3f}]"
    return Condition(condition.name, said, condition.by, condition.holds)


def _verdict(said: Mapping[str, Any]) -> Condition:
    name = f"threshold not {VOID}"
    text = f"{said['verdict']}, {said['flags']} of {said['images']} that count are flagged"
    return Condition(name, text, 0, said["verdict"] != VOID)


def _at_most(name: str, value: float, most: float) -> Condition:
    name = f"{name} at most {most:g}"
    return Condition(name, f"{value:.3f}", max(0, value - most), value <= most)


def _not_worse(against: Difference | str, most: float) -> Condition:
    name = f"image AUROC not more than {most:g} behind the champion"
    if isinstance(against, str):
        return Condition(name, against, 0, holds=False)
    said = f"{against.estimate:+.3f}, {LEVEL:.0%} sure of {against.low:+.3f}"
    return Condition(name, said, max(0, -most - against.low), against.low >= -most)
