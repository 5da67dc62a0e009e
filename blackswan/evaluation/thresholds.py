"""Thresholds and p-values from held-out normal scores only (split conformal prediction).

The one assumption is that a new normal image is exchangeable with the held-out ones: same source,
same conditions, and no fit has seen either. Then P(false alarm) <= alpha holds for any detector and
any distribution of scores (Vovk et al. 2005; Laxhammar and Falkman 2010). The ViT stops early, and
efficient_ad scales its maps, on the same held-out images: their rates may lie above alpha by what
little that teaches them. The guarantee is over the draw of both; for one
given set of n held-out images the rate scatters around alpha as Beta(m, n + 1 - m) does, with
m = alpha (n + 1).

Several sets of scores give one threshold: the largest of theirs. An image is then flagged where
each set alone would flag it, and its p-value is the largest of theirs. A further set that is too
small for alpha takes part with its largest score.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from blackswan.data.shortages import Shortage, refuse
from blackswan.errors import InputError


def finite_scores(scores: np.ndarray, what: str) -> np.ndarray:
    """Return `scores` (N,) as float64; raises InputError where one is NaN or infinite."""
    values = np.asarray(scores, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"{what}: {len(bad)} of {values.size} scores are not finite, the first at position "
            f"{bad[0]}; fit the detector again or mend the image that it fails on"
        )
    return values


def conformal_threshold(normal_scores: np.ndarray, alpha: float) -> float:
    """Return the smallest t for which flagging `score > t` has P(false alarm) <= alpha.

    t is the ceil((n + 1)(1 - alpha))-th smallest of the n scores. Raises InputError where n is too
    small for alpha, which is below 1 / (n + 1).
    """
    scores = np.sort(finite_scores(normal_scores, "held-out normal images"))
    count = len(scores)
    if not 0 < alpha < 1:
        raise InputError(f"evaluate.alpha = {alpha} must lie between 0 and 1; 0.05 is usual")
    if count == 0:
        raise InputError(f"evaluate.alpha = {alpha} needs held-out normal images; add some")
    refuse(too_few_for(alpha, {"held-out normal images": count}))
    # How many of the p-values that can occur are alarms: n + 1 - ceil((n + 1)(1 - alpha)) without
    # its float error, for p_values divides in the same way and the two can never disagree.
    attainable = np.arange(1, count + 1) / (count + 1)
    alarms = int(np.searchsorted(attainable, alpha, side="right"))
    return float(scores[count - alarms])


def too_few_for(alpha: float, counts: Mapping[str, int]) -> Shortage | None:
    """Tell where images that calibrate, counted by what they are, are too few for `alpha`.

    The setting of the shortage is the smallest alpha that all of them can support.
    """
    # The smallest p-value of n scores is 1 / (n + 1), divided as conformal_threshold divides.
    short = {what: count for what, count in counts.items() if 1 / (count + 1) > alpha}
    if not short:
        return None
    smallest = {
        what: math.ceil(1e6 / (count + 1)) / 1e6  # rounded up: typed back in, it must work
        for what, count in short.items()
    }
    named = [f"{short[what]} {what} (the smallest is {smallest[what]:g})" for what in short]
    possible = f"evaluate.alpha={max(smallest.values()):g}" if min(short.values()) else ""
    return Shortage(f"evaluate.alpha = {alpha} is too small for {' and '.join(named)}", possible)


def p_values(scores: np.ndarray, normal_scores: np.ndarray) -> np.ndarray:
    """Return (1 + #{normal scores >= score}) / (n + 1) for every score, shape (N,).

    `score > conformal_threshold(normal_scores, alpha)` holds exactly where `p <= alpha`, ties
    included: a score equal to a normal one counts that normal against itself.
    """
    normals = np.sort(finite_scores(normal_scores, "held-out normal images"))
    below = np.searchsorted(normals, finite_scores(scores, "images"), side="left")
    return (1 + len(normals) - below) / (len(normals) + 1)


def largest_threshold(sets: Sequence[np.ndarray], alpha: float) -> float:
    """Return the largest conformal threshold of several sets of normal scores.

    Of a further set that is too small for alpha its largest score counts: left out, a smaller alpha
    could give a lower threshold. Raises InputError where the first set is too small.
    """
    first, *others = sets
    enough = conformal_threshold(first, alpha)
    return max([enough, *(_attainable_threshold(scores, alpha) for scores in others)])


def largest_p_values(scores: np.ndarray, sets: Sequence[np.ndarray], alpha: float) -> np.ndarray:
    """Return the largest p-value of every score (N,) over the sets.

    `score > largest_threshold(sets, alpha)` holds exactly where it is at most alpha: of a score
    above all of a further set that is too small for alpha, that set says nothing.
    """
    first, *others = sets
    values = [p_values(scores, first)]
    for normals in others:
        found = p_values(scores, normals)
        silent = _is_short(normals, alpha) & (scores > normals.max())
        values.append(np.where(silent, 0.0, found))
    return np.max(values, axis=0)


def _attainable_threshold(scores: np.ndarray, alpha: float) -> float:
    return float(scores.max()) if _is_short(scores, alpha) else conformal_threshold(scores, alpha)


def _is_short(scores: np.ndarray, alpha: float) -> bool:
    return too_few_for(alpha, {"": len(scores)}) is not None


def threshold_between(normal: float, anomalous_scores: np.ndarray, miss_rate: float) -> float:
    """Return a threshold of probabilities that keeps clear of normal and anomalous images alike.

    `normal` is the conformal threshold of normal images, below which it never goes: false alarms
    stay as rare. Where the conformal lower quantile of the anomalous scores, which a new anomaly of
    their kind misses with probability at most `miss_rate`, leaves room above it, the threshold lies
    midway on the logit scale; a detector that is sure of all it has seen would else flag whatever
    is a hair less sure. Too few anomalies for `miss_rate` leave no room.
    """
    from scipy.special import expit, logit  # an exported model is used without it

    if miss_rate * (len(anomalous_scores) + 1) < 1:
        return normal
    lowest = -conformal_threshold(-np.asarray(anomalous_scores), miss_rate)
    if lowest <= normal:
        return normal
    nearest_one = 2.0**-24  # 1 less this is the largest float32 below 1
    both = np.clip([normal, lowest], nearest_one, 1 - nearest_one)
    return max(normal, float(expit(logit(both).mean())))
