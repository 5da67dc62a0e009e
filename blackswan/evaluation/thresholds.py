"""Thresholds and p-values from held-out normal scores only (split conformal prediction).

The one assumption is that a new normal image is exchangeable with the held-out ones: same source,
same conditions, and no fit has seen either. Then P(false alarm) <= alpha holds for any detector and
any distribution of scores (Vovk et al. 2005; Laxhammar and Falkman 2010). The ViT stops early, and
efficient_ad scales its maps, on the same held-out images: their rates may lie above alpha by what
little that teaches them. The guarantee is over the draw of both; for one
given set of n held-out images the rate scatters around alpha as Beta(m, n + 1 - m) does, with
m = alpha (n + 1).
"""

import math

import numpy as np

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
    # How many of the p-values that can occur are alarms: n + 1 - ceil((n + 1)(1 - alpha)) without
    # its float error, for p_values divides in the same way and the two can never disagree.
    attainable = np.arange(1, count + 1) / (count + 1)
    alarms = int(np.searchsorted(attainable, alpha, side="right"))
    if alarms == 0:
        smallest = math.ceil(1e6 / (count + 1)) / 1e6  # rounded up: typed back in, it must work
        raise InputError(
            f"evaluate.alpha = {alpha} is too small for {count} held-out normal images; "
            f"the smallest possible is {smallest:g}, or add normal images"
        )
    return float(scores[count - alarms])


def p_values(scores: np.ndarray, normal_scores: np.ndarray) -> np.ndarray:
    """Return (1 + #{normal scores >= score}) / (n + 1) for every score, shape (N,).

    `score > conformal_threshold(normal_scores, alpha)` holds exactly where `p <= alpha`, ties
    included: a score equal to a normal one counts that normal against itself.
    """
    normals = np.sort(finite_scores(normal_scores, "held-out normal images"))
    below = np.searchsorted(normals, finite_scores(scores, "images"), side="left")
    return (1 + len(normals) - below) / (len(normals) + 1)
